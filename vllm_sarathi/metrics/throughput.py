"""Tokens per second while there is work, and the queue that they can serve in time."""

from dataclasses import dataclass
from math import exp

from vllm.logger import init_logger

from vllm_sarathi.metrics.catalogue import Catalogue

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


class ThroughputRecorder:
    """Gauges of the throughput, and of the queue that follows from it.

    Args:
        catalogue: the metrics.
        ttft_s: objective for the first token of every request, in seconds; None recommends
            nothing.
    """

    def __init__(self, catalogue: Catalogue, ttft_s: float | None) -> None:
        self._ttft_s = ttft_s
        self._prefill, self._decode = Throughput(), Throughput()
        self._logged = 0.0
        text = (
            "Prefill tokens per second over the last half minute of steps that could not hold all "
            "prefill that waited."
        )
        self._prefill_gauge = catalogue.gauge("prefill_tokens_per_second", text)
        text = "Decode tokens per second over the last half minute of steps with decodes."
        self._decode_gauge = catalogue.gauge("decode_tokens_per_second", text)
        text = (
            "Prompt tokens that are prefilled within ttft_slo_ms at prefill_tokens_per_second: a "
            "value for vLLM's --max-num-queued-tokens."
        )
        self._recommended_gauge = catalogue.gauge("recommended_max_num_queued_tokens", text)

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
            self._decode_gauge().set(self._decode.tokens_per_s)
        if not is_full:
            return
        self._prefill.add(num_prefill_tokens, duration_s)
        tokens_per_s = self._prefill.tokens_per_s
        self._prefill_gauge().set(tokens_per_s)
        if self._ttft_s is not None and self._prefill.num_steps >= MIN_STEPS:
            self._recommend(self._ttft_s, tokens_per_s)

    def _recommend(self, ttft_s: float, tokens_per_s: float) -> None:
        queued = round(ttft_s * tokens_per_s)
        self._recommended_gauge().set(queued)
        if queued and not self._logged / _CHANGE < queued < self._logged * _CHANGE:
            self._logged = queued
            logger.info(
                "recommended: --max-num-queued-tokens %d (%.0f prefill tokens/s, ttft_slo_ms=%.0f)",
                queued,
                tokens_per_s,
                1e3 * ttft_s,
            )
