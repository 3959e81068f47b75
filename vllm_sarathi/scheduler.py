"""The schedulers: hide, delegate, restore.

Each step takes a snapshot of vLLM's queues, asks the batch builder for a plan,
sets what vLLM's own ``schedule()`` reads, calls it, and restores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import vllm
from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler

from vllm_sarathi.batch_builder import MIN_PREFILL_TOKENS
from vllm_sarathi.compatibility import check_vllm_version
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.exporter import EngineMetricsWriter
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.presets import batch_builder
from vllm_sarathi.snapshot import Snapshot, admission_attribute, admission_limit, take_snapshot
from vllm_sarathi.step import StepPlan

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

logger = init_logger(__name__)

check_vllm_version(vllm.__version__)


class SarathiMixin:
    """SARATHI's batches out of a vLLM scheduler class that follows it in the MRO.

    Reads its settings from ``vllm_config.additional_config["sarathi"]``.

    Raises:
        ValueError: a setting is wrong, or the engine's limits forbid it.
    """

    running: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        engine: Any = self
        config = engine.vllm_config
        settings = SarathiConfig.from_mapping(config.additional_config.get("sarathi", {}))
        settings.check_limits(
            max_num_batched_tokens=engine.max_num_scheduled_tokens,
            enable_chunked_prefill=engine.scheduler_config.enable_chunked_prefill,
        )
        self._batch_builder = batch_builder(settings, _min_prefill_tokens(engine))
        self._recorder = self._metrics_writer = None
        if engine.log_stats:
            name, rank = _served_name(config), config.parallel_config.data_parallel_index
            self._recorder = StepRecorder(settings.model_dump(), name, rank)
            self._metrics_writer = EngineMetricsWriter(self._recorder.registry, f"engine-{rank}")
        logger.info("SARATHI scheduling with %s", settings)

    def schedule(self, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        """Plan the next batch and let vLLM schedule it."""
        started = perf_counter()
        snapshot = take_snapshot(self)
        plan = self._batch_builder.plan(snapshot.view)
        with self._applied(plan, snapshot):
            delegated = perf_counter()
            output = super().schedule(*args, **kwargs)  # type: ignore[misc]  # vLLM's
            returned = perf_counter()
        if self._recorder is not None and self._metrics_writer is not None:
            prefills = [*snapshot.prefills, *self._admitted(output)]
            overhead_s = perf_counter() - returned + delegated - started
            self._recorder.record(plan, output, prefills, overhead_s)
            self._metrics_writer.touch()
        return output

    @contextmanager
    def _applied(self, plan: StepPlan, snapshot: Snapshot) -> Iterator[None]:
        """Set what vLLM's ``schedule()`` reads to the plan; restore it afterwards.

        Without prefill nothing is restricted: decodes take what they need.
        """
        if not plan.chunks:
            yield
            return
        engine: Any = self
        budget, attribute = engine.max_num_scheduled_tokens, admission_attribute(engine)
        limit, running = admission_limit(engine), engine.running
        visible, tokens = running, plan.token_budget
        if not snapshot.decodes_first:
            visible, tokens = self._decodes_first(plan, snapshot)
        shown = None if visible is running else frozenset(visible)
        seats = len(visible) + engine.num_waiting_for_streaming_input + plan.max_new_prefills
        engine.running = visible
        engine.max_num_scheduled_tokens = min(tokens, budget)
        setattr(engine, attribute, min(limit - len(running) + len(visible), seats))
        try:
            yield
        finally:
            engine.max_num_scheduled_tokens = budget
            setattr(engine, attribute, limit)
            if shown is not None:
                engine.running = merge(running, shown, engine.running)

    def _decodes_first(self, plan: StepPlan, snapshot: Snapshot) -> tuple[list[Any], int]:
        """The running requests, decodes before prefills, and a token budget.

        First come, first served, vLLM preempts from the end of its list, and
        takes for granted that the end is not scheduled yet. So the budget keeps
        to what surely fits into free memory. Where that leaves nothing for
        prefill, the order stays, and a prefill in front of a decode sits the
        step out instead.
        """
        engine: Any = self
        tokens = plan.token_budget
        if engine.policy != SchedulingPolicy.PRIORITY:
            num_requests = snapshot.view.num_decodes + len(plan.chunks)
            tokens = min(tokens, _num_tokens_that_fit(engine, num_requests))
        if tokens > snapshot.view.num_decode_tokens:
            by_phase = sorted(engine.running, key=lambda request: bool(request.is_prefill_chunk))
            return by_phase, tokens
        last = max(i for i, request in enumerate(engine.running) if not request.is_prefill_chunk)
        decodes = [request for request in engine.running[:last] if not request.is_prefill_chunk]
        return [*decodes, *engine.running[last:]], plan.token_budget

    def _admitted(self, output: Any) -> list[Any]:
        """Requests that this step moved from waiting to running."""
        num_resumed = len(output.scheduled_cached_reqs.resumed_req_ids)
        return self.running[len(self.running) - num_resumed - len(output.scheduled_new_reqs) :]


class SarathiScheduler(SarathiMixin, Scheduler):
    """For ``async_scheduling=False``."""


class AsyncSarathiScheduler(SarathiMixin, AsyncScheduler):
    """For ``async_scheduling=True``."""


def merge(running: list[Any], shown: frozenset[Any], scheduled: list[Any]) -> list[Any]:
    """Bring vLLM's list back to order after a step that saw only part of it.

    Args:
        running: the list before the step.
        shown: those of it that the step saw.
        scheduled: the list after the step: shown ones less those preempted,
            plus those admitted.

    Returns:
        Every survivor in its old place, then those admitted.
    """
    kept = frozenset(scheduled)
    survivors = [request for request in running if request in kept or request not in shown]
    return survivors + [request for request in scheduled if request not in shown]


def _num_tokens_that_fit(engine: Any, num_requests: int) -> int:
    """Tokens that free KV blocks surely hold, however they spread over requests."""
    free = engine.kv_cache_manager.block_pool.get_num_free_blocks()
    num_blocks = free // len(engine.kv_cache_config.kv_cache_groups) - 2 * num_requests
    return int(num_blocks * engine.block_size - num_requests * engine.num_lookahead_tokens)


def _min_prefill_tokens(engine: Any) -> int:
    """Least chunk that makes progress: some models can only be cut at certain places."""
    least = max(MIN_PREFILL_TOKENS, 1 + engine.num_spec_tokens, 1 + _prefill_lookahead(engine))
    if engine.need_mamba_block_aligned_split:
        least = max(least, engine.cache_config.block_size)
    whole_items = engine.scheduler_config.disable_chunked_mm_input
    if whole_items and engine.max_num_encoder_input_tokens:
        least = engine.max_num_scheduled_tokens
    return int(min(least, engine.max_num_scheduled_tokens))


def _prefill_lookahead(engine: Any) -> int:
    return int(getattr(engine, "num_prefill_lookahead", 0))


def _served_name(config: Any) -> str:
    name = config.model_config.served_model_name
    return str(name[0] if isinstance(name, list) else name)
