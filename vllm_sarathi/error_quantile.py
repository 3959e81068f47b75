"""A quantile of a stream of prediction errors, in constant time and memory."""

from dataclasses import dataclass


@dataclass(slots=True)
class ErrorQuantile:
    """A quantile of measured over predicted time, tracked one observation at a time.

    Attributes:
        quantile: the share of observations that shall lie below ``value``.
        value: the estimate, at least 1.
        rate: how far one observation moves it.
    """

    quantile: float
    value: float = 1.1
    rate: float = 0.02

    def observe(self, ratio: float) -> None:
        """Move towards the quantile (stochastic approximation)."""
        self.value += self.rate * (self.quantile - (ratio <= self.value))
        self.value = min(max(self.value, 1.0), 1.5)
