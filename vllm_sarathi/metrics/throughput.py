"""Tokens per second while there is work, and the queue that they can serve in time."""

from dataclasses import dataclass, field
from math import exp

from prometheus_client import CollectorRegistry, Gauge
from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

MEMORY_S = 30.0
"""How long ago a step counts 1 / e of the last one, in seconds of steps."""

MIN_STEPS = 30
"""Steps with more prefill than they hold after which their throughput is trusted."""

_CHANGE = 1.5
"""How many times larger or smaller a recommendation is that is worth another line."""


@dataclass(slots=True)
class Throughput:
    """Tokens over seconds of steps, weighted exponentially.

    Attributes:
        num_steps: steps that were counted.
    """

    num_steps: int = 0
    _num_tokens: float = 0.0
    _duration_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second; 0 before any step."""
        return self._num_tokens / self._duration_s if self._duration_s else 0.0

    def add(self, num_tokens: int, duration_s: float) -> None:
        """Note a step."""
        keep = exp(-duration_s / MEMORY_S)
        self._num_tokens = self._num_tokens * keep + num_tokens
        self._duration_s = self._duration_s * keep + duration_s
        self.num_steps += 1


@dataclass(slots=True)
class ThroughputRecorder:
    """Gauges of the throughput, and of the queue that follows from it.

    Args:
        registry: where the metrics go.
        prefix: what their names begin with.
        labels: labels of all of them, by name.
        ttft_s: objective for the first token of every request, in seconds; None recommends
            nothing.
    """

    registry: CollectorRegistry
    prefix: str
    labels: dict[str, str]
    ttft_s: float | None
    _prefill: Throughput = field(default_factory=Throughput)
    _decode: Throughput = field(default_factory=Throughput)
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _logged: float = 0.0

    def finished(
        self, num_prefill_tokens: int, num_decode_tokens: int, duration_s: float, is_full: bool
    ) -> None:
        """Count a step.

        Args:
            num_prefill_tokens: prefill tokens in it.
            num_decode_tokens: decode tokens in it.
            duration_s: how long it took, in seconds.
            is_full: whether there was more prefill to do than it held.
        """
        if num_decode_tokens:
            self._decode.add(num_decode_tokens, duration_s)
            text = "Output tokens per second while requests decode, over the last half minute."
            self._set("decode_tokens_per_second", text, self._decode.tokens_per_s)
        if not is_full:
            return
        self._prefill.add(num_prefill_tokens, duration_s)
        tokens_per_s = self._prefill.tokens_per_s
        text = "Prefill tokens per second while more prefill waits than a step holds."
        self._set("prefill_tokens_per_second", text, tokens_per_s)
        if self.ttft_s is not None and self._prefill.num_steps >= MIN_STEPS:
            self._recommend(self.ttft_s, tokens_per_s)

    def _recommend(self, ttft_s: float, tokens_per_s: float) -> None:
        queued = round(ttft_s * tokens_per_s)
        self._set(
            "recommended_max_num_queued_tokens",
            "Recommended --max-num-queued-tokens: what is prefilled within the objective for the "
            "first token.",
            queued,
        )
        if queued and not self._logged / _CHANGE < queued < self._logged * _CHANGE:
            self._logged = queued
            logger.info(
                "recommended --max-num-queued-tokens %d: %.0f prefill tokens/s within the "
                "ttft_slo_ms of %.0f",
                queued,
                tokens_per_s,
                1e3 * ttft_s,
            )

    def _set(self, name: str, text: str, value: float) -> None:
        """Set a gauge, which is absent until then."""
        if name not in self._gauges:
            gauge = Gauge(self.prefix + name, text, tuple(self.labels), registry=self.registry)
            self._gauges[name] = gauge.labels(*self.labels.values())
        self._gauges[name].set(value)
