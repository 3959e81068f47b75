"""Schedulers that stand beside ours: a crude prototype, and ours with parts switched off.

The simulator finds them by their paths (``prototype``, ``without``).
"""

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import RequestQueue

from vllm_sarathi import AsyncSarathiScheduler
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.company import Company
from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import SchedulerState
from vllm_sarathi.policy.step import StepPlan
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.token_budget import FixedTokenBudget
from vllm_sarathi.scheduler.ordered_queue import OrderedQueue
from vllm_sarathi.simulator import EngineSettings

PROTOTYPE_BUDGET, PROTOTYPE_SEATS = 512, 64
PREFILL_S = 0.2
"""How long before its deadline the prototype gives a request up."""

FIXED_BUDGET = 512
RELEGATION, ADMISSION, BUDGET = "relegation", "admission", "budget"
PAUSES, AGEING = "pauses", "ageing"
PARTS = (RELEGATION, ADMISSION, BUDGET, PAUSES, AGEING)
NO_AGEING = 1 << 62
"""``OwedBatches.ageing`` of an order that owes nothing to those that stepped aside."""


class DeadlineQueue(RequestQueue):
    """Earliest deadline first; requests that can no longer be in time last.

    Args:
        ttft_s: when first tokens are due after arrival, in seconds.
    """

    def __init__(self, ttft_s: float) -> None:
        self.ttft_s = ttft_s
        self.requests: list[Any] = []

    def _rank(self, request: Any) -> tuple[bool, float]:
        is_late = time.time() > request.arrival_time + self.ttft_s - PREFILL_S
        return is_late, request.arrival_time

    def add_request(self, request: Any) -> None:
        """Add a request."""
        self.requests.append(request)

    def prepend_request(self, request: Any) -> None:
        """Put a request back, at its own place."""
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Put requests back, at their own places."""
        self.requests.extend(requests)

    def peek_request(self) -> Any:
        """The request that is served next; ``IndexError`` if there is none."""
        if not self.requests:
            raise IndexError("no request waits")
        return min(self.requests, key=self._rank)

    def pop_request(self) -> Any:
        """Take the request that is served next; ``IndexError`` if there is none."""
        request = self.peek_request()
        self.requests.remove(request)
        return request

    def remove_request(self, request: Any) -> None:
        """Remove a request; ``ValueError`` if it is not there."""
        self.requests.remove(request)

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Remove those of the requests that are there."""
        gone = set(requests)
        self.requests = [request for request in self.requests if request not in gone]

    def __bool__(self) -> bool:
        return bool(self.requests)

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self.requests, key=self._rank))


class PrototypeScheduler(AsyncScheduler):
    """Stock vLLM with a ``DeadlineQueue``; ``prototype`` tells it the objective."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting = DeadlineQueue(self.vllm_config.additional_config["prototype"])


def prototype(ttft_s: float) -> EngineSettings:
    """The prototype as an engine, told when first tokens are due."""
    return EngineSettings(
        f"{__name__}.{PrototypeScheduler.__name__}",
        max_num_batched_tokens=PROTOTYPE_BUDGET,
        max_num_seqs=PROTOTYPE_SEATS,
        engine_args={"additional_config": {"prototype": ttft_s}},
        label="prototype",
    )


class NobodyAside(WaitingOrder):
    """An order in which nobody steps aside."""

    __slots__ = ()

    def steps_aside(self, place: Place, now_s: float) -> bool:
        """Nobody does."""
        return False

    def expire(self, now_s: float) -> list[Any]:
        """Begin a step. Nobody is too late."""
        return WaitingOrder.expire(self, -inf)

    def bypass(self, requests: Collection[Any], by: Any) -> None:
        """Nobody is bypassed: no batch would be owed to them."""


@dataclass(frozen=True, slots=True)
class AllJoin(Policy):
    """A policy that admits requests whatever their company makes of the pace."""

    def keeps_pace(self, company: Company) -> bool:
        """Everyone fits, so nobody is bypassed."""
        return True

    def plan(self, state: SchedulerState) -> StepPlan:
        """Plan the next batch."""
        return Policy.plan(self, replace(state, company=None))


class PartialScheduler(AsyncSarathiScheduler):
    """Ours without some of ``PARTS``; ``without`` tells it which."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        promises = self._promises
        if RELEGATION in self._missing and promises.order is not None:
            promises.order = NobodyAside(promises.order.prefill_weight)
            self.waiting = OrderedQueue(promises.order, promises.place)
        if AGEING in self._missing and promises.order is not None:
            promises.order.owed.ageing = NO_AGEING

    @property
    def _missing(self) -> list[str]:
        return list(self.vllm_config.additional_config["without"])

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """Ours, with a fixed budget, or without pauses or a bound on admissions."""
        policy = super().make_policy(settings, min_chunk, step_time)
        if BUDGET in self._missing:
            assert isinstance(policy.builder, StallFree)
            fixed = replace(policy.builder, token_budget=FixedTokenBudget(FIXED_BUDGET))
            policy = replace(policy, builder=fixed, pauses_decodes=False)
        if PAUSES in self._missing:
            policy = replace(policy, pauses_decodes=False)
        if ADMISSION in self._missing:
            policy = AllJoin(**{f.name: getattr(policy, f.name) for f in fields(policy)})
        return policy


def without(missing: tuple[str, ...], settings: dict[str, Any], **limits: Any) -> EngineSettings:
    """Ours without some parts as an engine.

    Args:
        missing: some of ``PARTS``.
        settings: of our scheduler.
        limits: other fields of ``EngineSettings``.
    """
    told = {"additional_config": {"without": list(missing)}}
    path = f"{__name__}.{PartialScheduler.__name__}"
    return EngineSettings(path, settings, engine_args=told, **limits)
