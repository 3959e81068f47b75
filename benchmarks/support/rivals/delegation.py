"""What rival policies share: our delegation to vLLM, and when tokens of a decode are due.

Of our scheduler a rival keeps how plans are applied, the free KV blocks that are kept for
running requests, and the step-time model, which learns from its own steps. It has none of our
budget, pauses, admission by pace or ageing.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import Any, ClassVar

from support.goodput_rivals import AllJoin
from support.goodput_runs import OURS_BUDGET

from vllm_sarathi import AsyncSarathiScheduler
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import Decodes, Due, SchedulerState
from vllm_sarathi.policy.step import StepPlan
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.scheduler.ordered_queue import OrderedQueue
from vllm_sarathi.simulator import EngineSettings


class Rival(AsyncSarathiScheduler):
    """A rival's policy on our delegation; ``rival`` tells it the rest."""

    @property
    def told(self) -> dict[str, Any]:
        """What ``rival`` was given."""
        found: dict[str, Any] = self.vllm_config.additional_config.get("rival", {})
        return found

    def serve_in(self, order: WaitingOrder) -> None:
        """Let prompts be served in an order of the rival's."""
        self._promises.order = order
        self.waiting = OrderedQueue(order, self._promises.place)


def rival(
    scheduler: type[Rival],
    label: str,
    settings: dict[str, Any],
    max_num_batched_tokens: int = OURS_BUDGET,
    **told: Any,
) -> EngineSettings:
    """A rival as an engine.

    Args:
        scheduler: its class.
        label: what tables call it.
        settings: of our scheduler: objectives and order.
        max_num_batched_tokens: vLLM's.
        told: what else it is told.
    """
    return EngineSettings(
        f"{scheduler.__module__}.{scheduler.__name__}",
        settings,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=256,
        engine_args={"additional_config": {"rival": told}},
        label=label,
    )


class Anchor(Enum):
    """From when on one token is due for each TPOT."""

    ARRIVAL = "arrival"
    """Arrival + TTFT objective: a first token that is early earns slack for later ones."""
    LATER = "later"
    """The same, or the first token if that was later."""
    FIRST_TOKEN = "first token"
    """The first token, as ``vllm bench serve`` measures TPOT."""


@dataclass(frozen=True, slots=True)
class TokenDeadlines:
    """When next tokens are due.

    Attributes:
        scheduler: whose requests.
        anchor: from when on TPOT counts.
    """

    scheduler: Any
    anchor: Anchor

    def slacks_s(self, decodes: Decodes, begin_s: float) -> Iterator[float]:
        """Time from when the step can begin until each decode's next token is due."""
        promises, per_step = self.scheduler._promises, 1 + self.scheduler.num_spec_tokens
        to_monotonic_s = time.monotonic() - time.time()
        for request in decodes.requests:
            answer = promises.answers.begun.get(request.request_id)
            if answer is None:  # it was promised nothing
                yield inf
                continue
            first_s = answer.first_s if answer.num_tokens else begin_s
            anchor_s = promises.first_due_s(request) + to_monotonic_s
            if self.anchor is Anchor.FIRST_TOKEN:
                anchor_s = first_s
            elif self.anchor is Anchor.LATER:
                anchor_s = max(anchor_s, first_s)
            num_in_flight = -(-request.num_output_placeholders // per_step)
            num_tokens = answer.num_tokens + num_in_flight * answer.tokens_per_step
            yield anchor_s + num_tokens * promises.promise(request).tpot_s - begin_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePolicy(AllJoin):
    """A policy that knows when tokens are due.

    Attributes:
        deadlines: of the decodes' tokens.
        tpot_s: objective for the time per token.
    """

    deadlines: TokenDeadlines
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackPolicy(DeadlinePolicy):
    """Shows a builder the least slack of the decodes, as ``StepView.due``."""

    def plan(self, state: SchedulerState) -> StepPlan:
        """Plan the next batch."""
        slacks_s = self.deadlines.slacks_s(state.decodes, state.outlook.begin_s)
        due = Due(min(slacks_s, default=inf), self.tpot_s)
        return AllJoin.plan(self, replace(state, due=due))


class DeadlineRival(Rival):
    """A rival that sizes batches by deadlines of tokens; ``anchor`` may tell it another one.

    Its budget is a ``TokenBudget`` made of a step-time model.
    """

    POLICY: ClassVar[type[DeadlinePolicy]] = SlackPolicy
    BUDGET: ClassVar[type[Any]]
    ANCHOR: ClassVar[Anchor]

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """Its budget under its deadlines."""
        model, kind = step_time or StepTimeModel(), type(self)
        assert settings.tpot_slo_ms is not None, "tpot_slo_ms is what it follows"
        return kind.POLICY(
            model,
            StallFree(kind.BUDGET(model), min_prefill_tokens=max(1, min_chunk)),
            deadlines=TokenDeadlines(self, Anchor(self.told.get("anchor", kind.ANCHOR))),
            tpot_s=settings.tpot_slo_ms / 1e3,
        )


def may_skip_decodes(state: SchedulerState) -> bool:
    """Whether vLLM can do without seeing some decodes: it preempts nobody in this step."""
    num_tokens = min(state.num_prefill_tokens, state.max_num_scheduled_tokens)
    num_tokens += sum(state.decodes.num_tokens)
    return state.kv.num_sure_tokens(state.kv.num_running) >= num_tokens


def joined_by(plan: StepPlan, decodes: Decodes, num_joining: int) -> StepPlan:
    """A plan that the first of these decodes join while the others sit the step out."""
    num_tokens = plan.num_decode_tokens + sum(decodes.num_tokens[:num_joining])
    return replace(
        plan,
        token_budget=max(plan.token_budget, num_tokens + plan.num_prefill_tokens),
        num_decode_tokens=num_tokens,
        decode_context_tokens=plan.decode_context_tokens + sum(decodes.contexts[:num_joining]),
        skipped_decodes=tuple(decodes.requests[num_joining:]),
    )
