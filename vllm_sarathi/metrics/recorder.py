"""What the engine core counts, from what vLLM really scheduled."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from vllm_sarathi.metrics.objectives import ObjectivesRecorder
from vllm_sarathi.metrics.throughput import ThroughputRecorder

if TYPE_CHECKING:
    from vllm_sarathi.metrics.step_log import ScheduledStep
    from vllm_sarathi.objectives import RequestObjectives
    from vllm_sarathi.policy.micro_batch import Evenness

PREFIX = "vllm_sarathi:"
_LABELS = ("model_name", "engine")
_TOKENS = (0, *(2**power for power in range(16)))
_CHUNKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_OVERHEAD_S = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
_STEP_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10)
_SHARE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_IMBALANCE = (1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 4, 8)
_RATIO = (0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 5)


class StepRecorder:
    """Prometheus metrics of one engine core.

    All metrics carry the labels ``model_name`` and ``engine``.

    Args:
        settings: the settings, for the info metric.
        model_name: the name under which the model is served.
        engine: the data-parallel rank.
        objectives: those of the classes, first of requests that say nothing.

    Attributes:
        registry: holds them.
        objectives: counts how objectives are met.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        model_name: str,
        engine: int,
        objectives: Sequence["RequestObjectives"],
    ) -> None:
        self.registry = CollectorRegistry()
        self._labels = (model_name, str(engine))
        self._chunks: dict[str, int] = {}
        self._make_schedule_metrics()
        self._make_result_metrics()
        labels = dict(zip(_LABELS, self._labels, strict=True))
        self.objectives = ObjectivesRecorder(self.registry, PREFIX, labels, objectives)
        self._throughput = ThroughputRecorder(self.registry, PREFIX, labels, objectives[0].ttft_s)
        self._metric(Info, "settings", "Settings of the scheduler.").info(
            {name: str(value) for name, value in settings.items()}
        )

    def _make_schedule_metrics(self) -> None:
        self._prefill_tokens = self._metric(
            Histogram, "step_prefill_tokens", "Prefill tokens scheduled in a step.", buckets=_TOKENS
        )
        self._decode_tokens = self._metric(
            Histogram, "step_decode_tokens", "Decode tokens scheduled in a step.", buckets=_TOKENS
        )
        self._step_budget = self._metric(
            Histogram, "step_token_budget", "Token budget of a step with prefill.", buckets=_TOKENS
        )
        self._token_budget = self._metric(Gauge, "token_budget", "Token budget of the last step.")
        self._piggybacked = self._metric(
            Counter, "piggybacked_decodes", "Decodes that ran in a batch with a prefill chunk."
        )
        self._pauses = self._metric(
            Counter,
            "decode_pauses",
            "Decodes that paused for a step, their next token in time.",
        )
        self._prompt_chunks = self._metric(
            Histogram, "prompt_chunks", "Chunks in which a prompt was prefilled.", buckets=_CHUNKS
        )
        self._limits = Counter(
            PREFIX + "step_limit",
            "Steps by what kept them from being larger.",
            (*_LABELS, "limit"),
            registry=self.registry,
        )
        self._admission_blocked = Counter(
            PREFIX + "admission_blocked_steps",
            "Steps that admitted no waiting request, by reason: kv_blocks (free KV blocks are kept "
            "for running requests), promises (those would miss their objectives).",
            (*_LABELS, "reason"),
            registry=self.registry,
        )
        self._faults = Counter(
            PREFIX + "faults",
            "Exceptions in this scheduler, by what it did: vLLM decided such a step alone.",
            (*_LABELS, "where"),
            registry=self.registry,
        )
        text = "Time that planning adds to one schedule()."
        name = "schedule_overhead_seconds"
        self._overhead = self._metric(Histogram, name, text, buckets=_OVERHEAD_S)

    def _make_result_metrics(self) -> None:
        self._predicted = self._metric(
            Histogram, "predicted_step_seconds", "Predicted duration of a step.", buckets=_STEP_S
        )
        self._measured = self._metric(
            Histogram, "measured_step_seconds", "Measured duration of a step.", buckets=_STEP_S
        )
        text = "Measured over predicted duration of a step; its quantiles are the model's error."
        self._ratio = self._metric(Histogram, "step_time_ratio", text, buckets=_RATIO)
        self._safety = self._metric(
            Gauge, "step_time_safety_factor", "Factor under which 99% of the measured times stay."
        )
        self._objective = self._metric(
            Gauge, "tbt_objective_seconds", "Objective for the time between tokens."
        )
        self._least_gap: Gauge | None = None
        text = "Longest over mean predicted time of the micro-batches in a pipeline."
        self._imbalance = self._metric(Histogram, "micro_batch_imbalance", text, buckets=_IMBALANCE)
        text = "Share of stage time that uneven micro-batches leave idle, as predicted."
        self._stage_idle = self._metric(Histogram, "stage_idle_share", text, buckets=_SHARE)

    def count_schedule(
        self, step: "ScheduledStep | None", chunks: Collection[Any], finished: Collection[str]
    ) -> None:
        """Count what was scheduled.

        Args:
            step: the step, or None if nothing was there to run.
            chunks: requests of which the step runs a prefill chunk.
            finished: ids of the requests that have finished since the last step.
        """
        for request_id in finished:
            self._chunks.pop(request_id, None)
        if step is None:
            return
        self._prefill_tokens.observe(step.num_prefill_tokens)
        self._decode_tokens.observe(step.num_decode_tokens)
        self._token_budget.set(step.token_budget)
        self._pauses.inc(step.num_decodes_paused)
        self._limits.labels(*self._labels, step.limit).inc()
        if step.admission_blocked_by:
            self._admission_blocked.labels(*self._labels, step.admission_blocked_by).inc()
        if chunks:
            self._piggybacked.inc(step.num_decodes)
            self._step_budget.observe(step.token_budget)
        for request in chunks:
            count = self._chunks.pop(request.request_id, 0) + 1
            if request.is_prefill_chunk:
                self._chunks[request.request_id] = count
            else:
                self._prompt_chunks.observe(count)

    def count_fault(self, where: str) -> None:
        """Count an exception in our part of a step."""
        self._faults.labels(*self._labels, where).inc()

    def count_overhead(self, overhead_s: float) -> None:
        """Count the time spent around vLLM's own ``schedule()``, in seconds."""
        self._overhead.observe(overhead_s)

    def count_result(self, step: "ScheduledStep", duration_s: float | None, safety: float) -> None:
        """Count what a result showed.

        Args:
            step: the step.
            duration_s: how long it took, in seconds, if that could be told.
            safety: the step-time model's safety factor.
        """
        self._safety.set(safety)
        if step.objective_s is not None:
            self._objective.set(step.objective_s)
        if duration_s is None:
            return
        self._measured.observe(duration_s)
        self._throughput.finished(
            step.num_prefill_tokens, step.num_decode_tokens, duration_s, step.is_full
        )
        if step.predicted_s > 0:
            self._predicted.observe(step.predicted_s)
            self._ratio.observe(duration_s / step.predicted_s)

    def set_least_gap(self, gap_s: float) -> None:
        """Show the shortest gap between tokens, in seconds; absent until it is known."""
        if self._least_gap is None:
            text = "Shortest typical gap between tokens: no objective below it can be met."
            self._least_gap = self._metric(Gauge, "least_gap_seconds", text)
        self._least_gap.set(gap_s)

    def count_evenness(self, evenness: "Evenness") -> None:
        """Count how even the micro-batches in a pipeline were as one came back."""
        self._imbalance.observe(evenness.imbalance)
        self._stage_idle.observe(evenness.idle_share)

    def _metric(self, kind: Any, name: str, text: str, **options: Any) -> Any:
        metric = kind(PREFIX + name, text, _LABELS, registry=self.registry, **options)
        return metric.labels(*self._labels)
