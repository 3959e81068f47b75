"""The schedulers: snapshot, plan, apply, delegate, restore."""

from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import vllm
from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.engine_limits import check_limits
from vllm_sarathi.metrics.step_log import StepLog, own_path
from vllm_sarathi.policy import presets
from vllm_sarathi.policy.batch_builder import MIN_PREFILL_TOKENS
from vllm_sarathi.policy.least_gap import LeastGap
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.step import StepPlan
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.scheduler.delegation import applied
from vllm_sarathi.scheduler.exports import recorder_of
from vllm_sarathi.scheduler.faults import Faults
from vllm_sarathi.scheduler.observer import StepObserver
from vllm_sarathi.scheduler.ordered_queue import OrderedQueue
from vllm_sarathi.scheduler.precedence import precedence
from vllm_sarathi.scheduler.promises import Promises
from vllm_sarathi.scheduler.shedding import Shedding
from vllm_sarathi.scheduler.snapshot import Snapshot, num_seqs_left, take_snapshot
from vllm_sarathi.scheduler.start_line import start_line
from vllm_sarathi.scheduler.step_logger import StepLogger
from vllm_sarathi.scheduler.vllm_versions import (
    check_vllm_version,
    keeps_items_whole,
    keeps_paused_decodes,
    model_min_chunk,
)

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

check_vllm_version(vllm.__version__)


class SarathiMixin:
    """SARATHI's batches out of a vLLM scheduler class that follows it in the MRO.

    Reads its settings from ``vllm_config.additional_config["sarathi"]``. A fault of ours never
    ends the engine: vLLM goes on without it, and decides alone after repeated ones.

    Raises:
        ValueError: a setting is wrong, or the engine's limits forbid it.
    """

    running: list[Any]
    step_observer: StepObserver | None = None
    """Learns and counts; None only where vLLM's own tests make a scheduler without ``__init__``."""
    _shedding: Shedding | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scheduler: Any = self
        settings = SarathiConfig.of_engine(scheduler.vllm_config)
        min_chunk = model_min_chunk(scheduler)
        check_limits(
            settings,
            max_num_batched_tokens=scheduler.max_num_scheduled_tokens,
            enable_chunked_prefill=scheduler.scheduler_config.enable_chunked_prefill,
            is_encoder_decoder=scheduler.is_encoder_decoder,
            min_chunk=min_chunk,
        )
        if keeps_items_whole(scheduler):
            logger.warning("disable_chunked_mm_input: any batch may grow to max_num_batched_tokens")
        for line in precedence(scheduler.scheduler_config, settings):
            logger.warning("%s", line)
        num_stages = scheduler.parallel_config.pipeline_parallel_size
        self.batch_policy = self.make_policy(settings, min_chunk)
        self._faults = Faults()
        self._promises = Promises.of(scheduler, settings, self.batch_policy.step_time)
        if self._promises.order is not None:
            scheduler.waiting = OrderedQueue(self._promises.order, self._place)
        self._shedding = _shedding(scheduler, settings, self._promises)
        reader = self._promises.reader
        self._recorder = recorder_of(scheduler, settings, reader.of_classes)
        if self._recorder is not None:
            self._promises.listen = self._recorder.objectives.follow
        self.step_observer = StepObserver(
            self.batch_policy,
            self._promises,
            self._recorder,
            LeastGap.of(settings, num_stages, 1 + scheduler.num_spec_tokens),
            num_stages,
            _step_logger(scheduler, settings, self._promises),
        )
        self._faults.listen.append(self.step_observer.fault)
        logger.info("SARATHI scheduling: %s", start_line(scheduler, settings, reader.default))

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """What decides; a subclass may bring another one.

        Args:
            settings: the settings.
            min_chunk: prefill tokens below which the model makes no progress.
            step_time: predicts step times; None learns them.
        """
        scheduler: Any = self
        return presets.policy(
            settings,
            min_prefill_tokens=max(MIN_PREFILL_TOKENS, min_chunk),
            num_stages=scheduler.parallel_config.pipeline_parallel_size,
            keeps_paused_decodes=keeps_paused_decodes(scheduler),
            step_time=step_time,
        )

    def add_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Let a request wait."""
        super().add_request(request, *args, **kwargs)  # type: ignore[misc]  # vLLM's
        with self._faults.contained("arrival"):
            if self._promises.is_late(request):
                self._too_late([request])

    def schedule(self, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        """Plan the next batch and let vLLM schedule it."""
        began_s = perf_counter()
        observer, faults = self.step_observer, self._faults
        assert observer is not None
        faults.step()
        planned: tuple[StepPlan, Snapshot] | None = None
        with ExitStack() as overrides:
            with faults.contained("planning"):
                planned = self._plan(*args, **kwargs)
                overrides.enter_context(applied(self, *planned))
            delegated_s = perf_counter()
            output = super().schedule(*args, **kwargs)  # type: ignore[misc]  # vLLM's
            returned_s = perf_counter()
        with faults.contained("following"):
            if planned is None:
                observer.unplanned(output)
            else:
                observer.scheduled(*planned, output, self._admitted(output))
            if self._recorder is not None:
                self._recorder.count_overhead(perf_counter() - returned_s + delegated_s - began_s)
        return output

    def _plan(self, *args: Any, **kwargs: Any) -> tuple[StepPlan, Snapshot]:
        """Plan the step that vLLM's ``schedule()``, called with these arguments, makes."""
        assert self.step_observer is not None
        if self._faults.is_given_up and self.batch_policy.builder is not None:
            self._leave_all_to_vllm()
        outlook = self.step_observer.outlook
        if any((*args[:1], kwargs.get("throttle_prefills"))):
            outlook = replace(outlook, is_as_planned=False)
        self._too_late(self._promises.expire())
        company, keeps_pace = None, self.batch_policy.keeps_pace
        if num_seqs_left(self):
            company = self._promises.company()
            self._promises.lend_ranks(company, keeps_pace)
        if company is not None:
            self._promises.bypass(company, keeps_pace)
        snapshot = take_snapshot(self, outlook, self._promises, company)
        return self.batch_policy.plan(snapshot.state), snapshot

    def _leave_all_to_vllm(self) -> None:
        """Decide nothing any more, and give vLLM a queue of its own."""
        scheduler: Any = self
        self.batch_policy = self.batch_policy.observing()
        if self._promises.order is not None:
            queue = create_request_queue(scheduler.policy)
            for request in sorted(scheduler.waiting, key=lambda request: request.arrival_time):
                queue.add_request(request)
            scheduler.waiting, self._promises.order = queue, None

    def update_from_output(
        self, scheduler_output: "SchedulerOutput", *args: Any, **kwargs: Any
    ) -> Any:
        """Let vLLM process a result, and learn from it."""
        scheduler: Any = self
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)  # type: ignore[misc]
        if self.step_observer is None:
            return outputs
        if self._shedding is not None:
            self._shedding.tell(outputs)
        with self._faults.contained("result"):
            drained = not scheduler.has_unfinished_requests()
            self.step_observer.finished(scheduler_output, drained, outputs)
        return outputs

    def _place(self, request: Any) -> Place:
        """The place of a request among those that wait."""
        with self._faults.contained("arrival"):
            return self._promises.place(request)
        return Place(request, request.arrival_time, inf, request.num_tokens)

    def _too_late(self, late: list[Any]) -> None:
        """Shed those that can no longer be in time, or count that they step aside."""
        if not late:
            return
        shed = self._shedding.end(late) if self._shedding is not None else frozenset()
        assert self.step_observer is not None
        self.step_observer.too_late(late, shed)

    def _admitted(self, output: Any) -> list[Any]:
        """Requests that this step moved from waiting to running."""
        num_resumed = len(output.scheduled_cached_reqs.resumed_req_ids)
        return self.running[len(self.running) - num_resumed - len(output.scheduled_new_reqs) :]


class SarathiScheduler(SarathiMixin, Scheduler):
    """For ``async_scheduling=False``."""


class AsyncSarathiScheduler(SarathiMixin, AsyncScheduler):
    """For ``async_scheduling=True``."""


def _shedding(scheduler: Any, settings: SarathiConfig, promises: Promises) -> Shedding | None:
    if not settings.shed:
        return None
    assert promises.order is not None, "the settings refuse shed without an order"
    return Shedding(scheduler, promises.order)


def _step_logger(scheduler: Any, settings: SarathiConfig, promises: Promises) -> StepLogger | None:
    if not settings.step_log:
        return None
    parallel = scheduler.vllm_config.parallel_config
    num_engines, rank = parallel.data_parallel_size, parallel.data_parallel_index
    path = own_path(Path(settings.step_log), rank, num_engines)
    steps = StepLogger(StepLog(path), promises)
    steps.begin(settings, scheduler)
    return steps
