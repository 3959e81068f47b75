"""The schedulers: snapshot, plan, apply, delegate, restore."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import vllm
from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.exporter import EngineMetricsWriter
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.policy.batch_builder import MIN_PREFILL_TOKENS
from vllm_sarathi.policy.deadlines import PromptDeadlines
from vllm_sarathi.policy.presets import policy
from vllm_sarathi.scheduler.deadline_queue import DeadlineQueue
from vllm_sarathi.scheduler.delegation import applied
from vllm_sarathi.scheduler.observer import StepObserver
from vllm_sarathi.scheduler.snapshot import take_snapshot, waiting_view
from vllm_sarathi.scheduler.vllm_versions import check_vllm_version

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
        settings = SarathiConfig.from_mapping(
            engine.vllm_config.additional_config.get("sarathi", {})
        )
        least_chunk = min_chunk(engine)
        settings.check_limits(
            max_num_batched_tokens=engine.max_num_scheduled_tokens,
            enable_chunked_prefill=engine.scheduler_config.enable_chunked_prefill,
            min_chunk=least_chunk,
        )
        num_stages = engine.parallel_config.pipeline_parallel_size
        balanced = settings.balance_micro_batches is not False
        self._num_micro_batches = num_stages if balanced else 1
        self._policy = policy(
            settings,
            max(MIN_PREFILL_TOKENS, least_chunk),
            num_stages,
            self._num_micro_batches,
        )
        self._held_back: tuple[Any, ...] = ()
        self._deadlines = _deadlines(engine, settings)
        self._recorder, self._metrics_writer = _metrics(engine, settings)
        self.step_observer = StepObserver(
            self._policy,
            self._recorder,
            num_stages,
            settings.ttft_slo_ms / 1e3 if settings.ttft_slo_ms else None,
            Path(settings.step_log) if settings.step_log else None,
        )
        logger.info("SARATHI scheduling with %s", settings)

    def schedule(self, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        """Plan the next batch and let vLLM schedule it."""
        began_s = perf_counter()
        observer = self.step_observer
        outlook = observer.outlook
        if any((*args[:1], kwargs.get("throttle_prefills"))):
            outlook = replace(outlook, may_wait=False)
        snapshot = take_snapshot(
            self, self._num_micro_batches, outlook, self._held_back, self._deadlines
        )
        self._held_back = snapshot.held_back
        plan = self._policy.builder.plan(snapshot.view)
        with applied(self, plan, snapshot):
            delegated_s = perf_counter()
            output = super().schedule(*args, **kwargs)  # type: ignore[misc]  # vLLM's
            returned_s = perf_counter()
        observer.scheduled(plan, snapshot, output, self._admitted(output))
        if self._recorder is not None:
            self._recorder.count_overhead(perf_counter() - returned_s + delegated_s - began_s)
        return output

    def update_from_output(
        self, scheduler_output: "SchedulerOutput", *args: Any, **kwargs: Any
    ) -> Any:
        """Let vLLM process a result, and learn from it."""
        engine: Any = self
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)  # type: ignore[misc]
        drained = not engine.has_unfinished_requests()
        self.step_observer.finished(scheduler_output, drained, outputs)
        if self._metrics_writer is not None:
            self._metrics_writer.touch()
        return outputs

    def _admitted(self, output: Any) -> list[Any]:
        """Requests that this step moved from waiting to running."""
        num_resumed = len(output.scheduled_cached_reqs.resumed_req_ids)
        return self.running[len(self.running) - num_resumed - len(output.scheduled_new_reqs) :]


class SarathiScheduler(SarathiMixin, Scheduler):
    """For ``async_scheduling=False``."""


class AsyncSarathiScheduler(SarathiMixin, AsyncScheduler):
    """For ``async_scheduling=True``."""


def min_chunk(engine: Any) -> int:
    """Least chunk that makes progress: some models can only be cut at certain places."""
    lookahead = getattr(engine, "num_prefill_lookahead", 0)
    least = max(1 + engine.num_spec_tokens, 1 + lookahead)
    if engine.need_mamba_block_aligned_split:
        least = max(least, engine.cache_config.block_size)
    whole_items = engine.scheduler_config.disable_chunked_mm_input
    if whole_items and engine.max_num_encoder_input_tokens:
        logger.warning("disable_chunked_mm_input: any batch may grow to max_num_batched_tokens")
        least = engine.max_num_scheduled_tokens
    return int(min(least, engine.max_num_scheduled_tokens))


def _deadlines(engine: Any, settings: SarathiConfig) -> PromptDeadlines | None:
    """The order of prompts where there is an objective for them; priorities rule over it."""
    if settings.ttft_slo_ms is None or engine.policy != SchedulingPolicy.FCFS:
        return None
    deadlines = PromptDeadlines(settings.ttft_slo_ms / 1e3)
    engine.waiting = DeadlineQueue(
        deadlines, lambda request: waiting_view(engine, request).num_tokens
    )
    return deadlines


def _metrics(
    engine: Any, settings: SarathiConfig
) -> tuple[StepRecorder | None, EngineMetricsWriter | None]:
    if not engine.log_stats:
        return None, None
    config = engine.vllm_config
    name, rank = config.model_config.served_model_name, config.parallel_config.data_parallel_index
    served = name[0] if isinstance(name, list) else name
    recorder = StepRecorder(settings.model_dump(), served, rank)
    return recorder, EngineMetricsWriter(recorder.registry, f"engine-{rank}")
