"""What happened between two scrapes of a server."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vllm_sarathi.top.scrape import Scrape


@dataclass(frozen=True, slots=True)
class Span:
    """Two scrapes of a server that ran through. Figures that they do not tell are None.

    Attributes:
        first: the earlier one.
        last: the later one; the same where there is only one.
    """

    first: Scrape
    last: Scrape

    @property
    def duration_s(self) -> float:
        """Time between them."""
        return self.last.at_s - self.first.at_s

    def increase(self, name: str, **labels: str) -> float | None:
        """How much a counter grew. A series that the first scrape lacks began at 0."""
        now = self.last.total(name, **labels)
        if now is None or not self.duration_s:
            return None
        return now - (self.first.total(name, **labels) or 0)

    def rate(self, name: str) -> float | None:
        """How much a counter grew a second."""
        grown = self.increase(name)
        return None if grown is None else grown / self.duration_s

    def mean(self, name: str) -> float | None:
        """The mean of what a histogram observed."""
        return ratio(self.increase(f"{name}_sum"), self.increase(f"{name}_count"))

    def quantiles(self, name: str, shares: Sequence[float], **labels: str) -> list[float]:
        """Quantiles of what a histogram observed, none if it was nothing.

        As Prometheus's ``histogram_quantile``: within a bucket observations count as spread
        evenly, above the last bound as on it.
        """
        before = self.first.buckets(name, **labels)
        now = self.last.buckets(name, **labels)
        if not self.duration_s or len(now) < 2:
            return []
        counts = np.array([count - before.get(bound, 0) for bound, count in now.items()])
        if counts[-1] <= 0:
            return []
        return [_quantile(np.array(list(now)), counts, share) for share in shares]


def _quantile(bounds: np.ndarray, counts: np.ndarray, share: float) -> float:
    """A quantile of cumulated counts; the last bound is infinite."""
    rank = share * counts[-1]
    index = int(np.searchsorted(counts, rank))
    if index == len(bounds) - 1:
        return float(bounds[-2])
    if index == 0 and bounds[0] <= 0:
        return float(bounds[0])
    lower, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    return float(np.interp(rank, [below, counts[index]], [lower, bounds[index]]))


def ratio(part: float | None, whole: float | None) -> float | None:
    """A part of a whole; None where either is unknown, or nothing is there."""
    return part / whole if part is not None and whole else None
