"""What the engine core counts, from what vLLM really scheduled."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from vllm_sarathi.metrics.catalogue import Catalogue
from vllm_sarathi.metrics.objectives import BLOCKED_BY, ObjectivesRecorder
from vllm_sarathi.metrics.throughput import ThroughputRecorder
from vllm_sarathi.policy.step import BatchLimit

if TYPE_CHECKING:
    from vllm_sarathi.metrics.step_log import ScheduledStep
    from vllm_sarathi.objectives import RequestObjectives
    from vllm_sarathi.policy.micro_batch import Evenness

FaultPlace = Literal["arrival", "planning", "following", "result"]
"""What the scheduler was doing when a fault happened."""

_TOKENS = (0, *(2**power for power in range(16)))
_CHUNKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_OVERHEAD_S = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1)
_STEP_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10)
_SHARE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_IMBALANCE = (1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 4, 8)
_RATIO = (0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 5)
_LIMITS = (
    "objective (a longer step would miss the gap objective), tile (the next tokens would cost more "
    "time than they are worth), maximum (vLLM's max_num_batched_tokens), token_budget and "
    "chunk_size (the settings), micro_batch (longer ones would leave the pipeline idle), "
    f"{BLOCKED_BY}, no_more_prefill (nothing more waited), vllm (vLLM decided alone: preset "
    "observe, or a fault)"
)


class StepRecorder:
    """Prometheus metrics of one engine core.

    All metrics carry the labels ``model_name`` and ``engine``.

    Args:
        settings: the settings, for the info metric.
        model_name: the name under which the model is served.
        engine: the data-parallel rank.
        objectives: those of the classes, first of requests that say nothing.

    Attributes:
        catalogue: the metrics.
        objectives: counts how objectives are met.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        model_name: str,
        engine: int,
        objectives: Sequence["RequestObjectives"],
    ) -> None:
        self.catalogue = Catalogue({"model_name": model_name, "engine": str(engine)})
        self._chunks: dict[str, int] = {}
        self._make_batch_metrics(self.catalogue)
        self._make_decision_metrics(self.catalogue)
        gaps_s = {asked.tbt_s for asked in objectives if asked.tbt_s is not None}
        self._make_time_metrics(self.catalogue, (*_STEP_S, *gaps_s))
        self.objectives = ObjectivesRecorder(self.catalogue, objectives)
        self._throughput = ThroughputRecorder(self.catalogue, objectives[0].ttft_s)
        text = "The settings as labels; the value is always 1."
        shown = {name: str(value) for name, value in settings.items()}
        self.catalogue.info("settings_info", text, shown)

    def _make_batch_metrics(self, catalogue: Catalogue) -> None:
        text = f"Steps, by what kept them from being larger: {_LIMITS}."
        self._steps = catalogue.counter("steps_total", text, limit=[x.value for x in BatchLimit])
        text = "Prefill tokens that a step ran."
        self._prefill_tokens = catalogue.histogram("step_prefill_tokens", text, _TOKENS)
        text = "Decode tokens that a step ran."
        self._decode_tokens = catalogue.histogram("step_decode_tokens", text, _TOKENS)
        text = "Most tokens that a step with prefill might run, decodes included."
        self._budget = catalogue.histogram("step_budget_tokens", text, _TOKENS)
        text = "Chunks in which a prompt was prefilled."
        self._prompt_chunks = catalogue.histogram("prompt_chunks", text, _CHUNKS)

    def _make_decision_metrics(self, catalogue: Catalogue) -> None:
        text = "Decodes that ran in the same step as a prefill chunk."
        self._piggybacked = catalogue.counter("piggybacked_decodes_total", text)
        text = "Decodes that sat a step out because their next token would still be in time."
        self._pauses = catalogue.counter("decode_pauses_total", text)
        text = (
            "Exceptions in this scheduler, by what it was doing; vLLM went on without it. 0 is "
            "normal. After 3 within 100 steps vLLM decides alone until the server restarts."
        )
        self._faults = catalogue.counter("faults_total", text, where=get_args(FaultPlace))
        text = "Time that this scheduler adds to one call of vLLM's schedule()."
        self._overhead = catalogue.histogram("schedule_overhead_seconds", text, _OVERHEAD_S)

    def _make_time_metrics(self, catalogue: Catalogue, steps_s: Collection[float]) -> None:
        text = "How long a step was predicted to take."
        self._predicted = catalogue.histogram("predicted_step_seconds", text, steps_s)
        text = (
            "How long a step took: from one result to the next while requests run. Bucket "
            "boundaries include the gap objectives of settings and classes."
        )
        self._measured = catalogue.histogram("measured_step_seconds", text, steps_s)
        text = "Measured over predicted duration of a step: 1 is exact, above 1 was too optimistic."
        self._ratio = catalogue.histogram("step_time_ratio", text, _RATIO)
        text = "Factor on predictions that 99% of the measured durations stay under."
        self._safety = catalogue.gauge("step_time_safety_ratio", text)
        text = (
            "Longest gap between two tokens that the last step was sized for: tbt_slo_ms, or what "
            "auto derives; where requests have TPOT objectives, time until the next token is due."
        )
        self._objective = catalogue.gauge("tbt_objective_seconds", text)
        text = "Shortest typical gap between tokens so far, in steps without prefill."
        self._least_gap = catalogue.gauge("least_gap_seconds", text)
        text = "Pipelines: longest over mean predicted time of the micro-batches in flight."
        self._imbalance = catalogue.histogram("micro_batch_imbalance_ratio", text, _IMBALANCE)
        text = "Pipelines: share of stage time that uneven micro-batches leave idle, as predicted."
        self._stage_idle = catalogue.histogram("stage_idle_ratio", text, _SHARE)

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
        self._steps(step.limit).inc()
        self._prefill_tokens().observe(step.num_prefill_tokens)
        self._decode_tokens().observe(step.num_decode_tokens)
        self._pauses().inc(step.num_decodes_paused)
        if chunks:
            self._piggybacked().inc(step.num_decodes)
            self._budget().observe(step.token_budget)
        for request in chunks:
            count = self._chunks.pop(request.request_id, 0) + 1
            if request.is_prefill_chunk:
                self._chunks[request.request_id] = count
            else:
                self._prompt_chunks().observe(count)

    def count_unplanned(self) -> None:
        """Count a step that vLLM scheduled alone, after a fault."""
        self._steps(BatchLimit.VLLM.value).inc()

    def count_fault(self, where: FaultPlace) -> None:
        """Count an exception in our part of a step."""
        self._faults(where).inc()

    def count_overhead(self, overhead_s: float) -> None:
        """Count the time spent around vLLM's own ``schedule()``, in seconds."""
        self._overhead().observe(overhead_s)

    def count_result(self, step: "ScheduledStep", duration_s: float | None, safety: float) -> None:
        """Count what a result showed.

        Args:
            step: the step.
            duration_s: how long it took, in seconds, if that could be told.
            safety: the step-time model's safety factor.
        """
        self._safety().set(safety)
        if step.objective_s is not None:
            self._objective().set(step.objective_s)
        if duration_s is None:
            return
        self._measured().observe(duration_s)
        self._throughput.finished(
            step.num_prefill_tokens, step.num_decode_tokens, duration_s, step.is_full
        )
        if step.predicted_s > 0:
            self._predicted().observe(step.predicted_s)
            self._ratio().observe(duration_s / step.predicted_s)

    def set_least_gap(self, gap_s: float) -> None:
        """Show the shortest gap between tokens, in seconds."""
        self._least_gap().set(gap_s)

    def count_evenness(self, evenness: "Evenness") -> None:
        """Count how even the micro-batches in a pipeline were as one came back."""
        self._imbalance().observe(evenness.imbalance)
        self._stage_idle().observe(evenness.idle_share)
