"""Times between tokens, kept in memory that does not grow with their number."""

from collections import Counter
from math import exp, log

# Two gaps that differ by less than this share of themselves count as equal.
RESOLUTION = 0.0005
_BIN = log(1 + RESOLUTION)


class Gaps:
    """Counts of gaps in logarithmic bins: percentiles are exact to ``RESOLUTION``."""

    def __init__(self) -> None:
        self.num = 0
        self.max_s: float | None = None
        self._counts: Counter[int] = Counter()

    def add(self, gap_s: float, num: int = 1) -> None:
        """Count a gap so many times."""
        self.num += num
        if self.max_s is None or gap_s > self.max_s:
            self.max_s = gap_s
        self._counts[round(log(gap_s) / _BIN) if gap_s > 0 else -(1 << 30)] += num

    def percentile(self, percent: float) -> float | None:
        """The gap that so many percent do not exceed; None without gaps."""
        wanted, seen = self.num * percent / 100, 0
        for index, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return self._middle(index)
        return self.max_s

    def cdf(self) -> list[tuple[float, float]]:
        """(gap, share of gaps no longer than it), rising."""
        seen, points = 0, []
        for index, count in sorted(self._counts.items()):
            seen += count
            points.append((self._middle(index), seen / self.num))
        return points

    def _middle(self, index: int) -> float:
        return min(exp(index * _BIN), self.max_s or 0.0)
