"""What the engine core counts, from what vLLM really scheduled."""

from collections.abc import Collection
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from vllm_sarathi.step import StepPlan

PREFIX = "vllm_sarathi:"
_LABELS = ("model_name", "engine")
_TOKENS = (0, *(2**power for power in range(16)))
_CHUNKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_SECONDS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)


class StepRecorder:
    """Prometheus metrics of one engine core.

    All metrics carry the labels ``model_name`` and ``engine``.

    Args:
        settings: the settings, for the info metric.
        model_name: the name under which the model is served.
        engine: the data-parallel rank.
    """

    def __init__(self, settings: dict[str, Any], model_name: str, engine: int) -> None:
        self.registry = CollectorRegistry()
        self._labels = (model_name, str(engine))
        self._prefill_tokens = self._histogram(
            "step_prefill_tokens", "Prefill tokens scheduled in a step.", _TOKENS
        )
        self._decode_tokens = self._histogram(
            "step_decode_tokens", "Decode tokens scheduled in a step.", _TOKENS
        )
        self._token_budget = self._histogram(
            "step_token_budget", "Token budget of a step that could run prefill.", _TOKENS
        )
        self._last_budget = self._metric(Gauge, "token_budget", "Token budget of the last step.")
        self._piggybacked = self._metric(
            Counter, "piggybacked_decodes", "Decodes that ran in a batch with a prefill chunk."
        )
        self._prompt_chunks = self._histogram(
            "prompt_chunks", "Chunks in which a prompt was prefilled.", _CHUNKS
        )
        self._overhead = self._histogram(
            "schedule_overhead_seconds", "Time that planning adds to one schedule().", _SECONDS
        )
        self._metric(Info, "settings", "Settings of the scheduler.").info(
            {name: str(value) for name, value in settings.items()}
        )
        self._chunks: dict[str, int] = {}

    def record(
        self, plan: StepPlan, output: Any, prefills: Collection[Any], overhead_s: float
    ) -> None:
        """Count one step.

        Args:
            plan: what was planned.
            output: vLLM's ``SchedulerOutput``, what was scheduled.
            prefills: requests that had prefill left, or were admitted.
            overhead_s: time spent around vLLM's own ``schedule()``, in seconds.
        """
        self._overhead.observe(overhead_s)
        self._forget(output.finished_req_ids)
        if not output.total_num_scheduled_tokens:
            return
        scheduled = output.num_scheduled_tokens
        chunks = [request for request in prefills if request.request_id in scheduled]
        num_prefill = sum(scheduled[request.request_id] for request in chunks)
        self._prefill_tokens.observe(num_prefill)
        self._decode_tokens.observe(output.total_num_scheduled_tokens - num_prefill)
        if chunks:
            self._piggybacked.inc(len(scheduled) - len(chunks))
            self._token_budget.observe(plan.token_budget)
        self._last_budget.set(plan.token_budget)
        self._count_chunks(chunks)

    def _count_chunks(self, chunks: Collection[Any]) -> None:
        for request in chunks:
            count = self._chunks.pop(request.request_id, 0) + 1
            if request.is_prefill_chunk:
                self._chunks[request.request_id] = count
            else:
                self._prompt_chunks.observe(count)

    def _forget(self, request_ids: Collection[str]) -> None:
        for request_id in request_ids:
            self._chunks.pop(request_id, None)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Any:
        return self._metric(Histogram, name, text, buckets=buckets)

    def _metric(self, kind: Any, name: str, text: str, **options: Any) -> Any:
        metric = kind(PREFIX + name, text, _LABELS, registry=self.registry, **options)
        return metric.labels(*self._labels)
