"""Latency metrics, defined once: the simulator, the demo and the benchmarks use these.

All are pure functions of when a request arrived and when its tokens came. What is
undefined is None, never 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np


@dataclass(frozen=True, slots=True)
class Objectives:
    """What a request asks of its latency, in seconds; None asks nothing."""

    ttft_s: float | None = None
    tbt_s: float | None = None
    e2e_s: float | None = None
    tpot_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "tbt_s", "e2e_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"objective {name}={value!r} must be above 0, or None")

    @property
    def by_kind_s(self) -> dict[str, float]:
        """What is asked, in seconds, by its kind: ``ttft``, ``tpot``, ``tbt``, ``e2e``."""
        kinds = {"ttft": self.ttft_s, "tpot": self.tpot_s, "tbt": self.tbt_s, "e2e": self.e2e_s}
        return {kind: limit_s for kind, limit_s in kinds.items() if limit_s is not None}


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """When one request arrived and when its tokens came.

    Args:
        arrival_s: when the request was sent, in seconds.
        token_times_s: when each output token came, in order, on the same clock.
        finished: whether the request got its last token.
    """

    arrival_s: float
    token_times_s: Sequence[float]
    finished: bool = True

    @property
    def ttft_s(self) -> float | None:
        """Time to first token; None before there is one."""
        if not len(self.token_times_s):
            return None
        return float(self.token_times_s[0]) - self.arrival_s

    @property
    def tbts_s(self) -> list[float]:
        """Times between tokens (vLLM's ITL): every gap after the first token."""
        return [float(later) - float(earlier) for earlier, later in pairwise(self.token_times_s)]

    @property
    def e2e_s(self) -> float | None:
        """Time to the last token; None before the request has finished."""
        if not self.finished or not len(self.token_times_s):
            return None
        return float(self.token_times_s[-1]) - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None with fewer than two tokens."""
        if not self.finished or len(self.token_times_s) < 2:
            return None
        elapsed_s = float(self.token_times_s[-1]) - float(self.token_times_s[0])
        return elapsed_s / (len(self.token_times_s) - 1)

    def fluidity(self, ttft_s: float, tbt_s: float) -> float | None:
        """Share of due token deadlines that are met (Metron/Etalon, section 4).

        Token i is due at arrival + TTFT + i x TBT: a token that comes early leaves
        its slack to the next. A late one misses every deadline that passed while it
        was awaited, and the schedule restarts from it.

        Args:
            ttft_s: objective for the first token, in seconds.
            tbt_s: objective for each later one, in seconds.

        Returns:
            Deadlines met / deadlines due; None without a token.
        """
        due_s, num_met, num_missed = self.arrival_s + ttft_s, 0, 0
        for time_s in self.token_times_s:
            if time_s <= due_s:
                num_met += 1
                due_s += tbt_s
            else:
                num_missed += ceil((time_s - due_s) / tbt_s)
                due_s = time_s + tbt_s
        due = num_met + num_missed
        return num_met / due if due else None

    def meets(self, objectives: Objectives) -> bool:
        """Whether the request finished and met every objective.

        TBT caps each gap, TPOT their mean.
        """
        limits = (
            (self.ttft_s, objectives.ttft_s),
            (self.tpot_s, objectives.tpot_s),
            (max(self.tbts_s, default=None), objectives.tbt_s),
            (self.e2e_s, objectives.e2e_s),
        )
        return self.finished and all(
            value is None or limit is None or value <= limit for value, limit in limits
        )


def goodput(met: Iterable[bool], num_offered: int) -> float | None:
    """Share of *offered* requests that meet all their objectives.

    Args:
        met: for each request that was answered, whether it did (``RequestTimes.meets``).
        num_offered: requests sent, whatever became of them.

    Returns:
        A share from 0 to 1; None if nothing was offered.
    """
    return sum(met) / num_offered if num_offered else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Percentile by linear interpolation; None of no values."""
    return float(np.percentile(values, percent)) if len(values) else None
