"""Steps summed up in time bins: memory does not grow with their number."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vllm_sarathi.policy.step import BatchLimit
from vllm_sarathi.report.lines import Step

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NUM_BINS = 360
FIRST_WIDTH_S = 0.25
"""Bins are no shorter: most steps end within one."""

LIMITS = tuple(limit.value for limit in BatchLimit)
_COLUMNS = (
    "num_decodes",
    "num_prefill_tokens",
    "token_budget",
    "num_decodes_paused",
    "predicted_s",
    "duration_s",
    "between_s",
    "num_in_flight",
    "num_running",
    "num_waiting",
    "num_aside",
    "num_preempted",
    "kv_usage",
    "stage_idle_share",
)
_read = attrgetter(*_COLUMNS)


class Ended(NamedTuple):
    """A step, when it began and when it ended on the time axis, in seconds."""

    step: Step
    begin_s: float
    end_s: float


@dataclass(slots=True)
class Bins:
    """Sums and maxima over time. A bin becomes twice as wide when time runs out of them.

    Attributes:
        width_s: of a bin.
        num_used: bins up to the last one that holds anything.
    """

    width_s: float = FIRST_WIDTH_S
    num_used: int = 0
    _sums: dict[str, Floats] = field(default_factory=dict)
    _most: dict[str, Floats] = field(default_factory=dict)

    def reach(self, time_s: float) -> None:
        """Make room for a time."""
        while time_s >= NUM_BINS * self.width_s:
            for series in (self._sums, self._most):
                for name, values in series.items():
                    pairs = values.reshape(-1, 2)
                    folded = pairs.sum(axis=1) if series is self._sums else pairs.max(axis=1)
                    series[name] = np.concatenate([folded, np.zeros(NUM_BINS // 2)])
            self.width_s *= 2
            self.num_used = -(-self.num_used // 2)
        self.num_used = max(self.num_used, int(time_s / self.width_s) + 1)

    def add(self, name: str, where: npt.NDArray[np.int64], values: Floats) -> None:
        """Add to a sum, for many steps at once."""
        self._sums[name] = self.sum_all(name) + np.bincount(where, values, NUM_BINS)

    def raise_to(self, name: str, where: npt.NDArray[np.int64], values: Floats) -> None:
        """Raise a maximum, for many steps at once."""
        np.maximum.at(self._most.setdefault(name, np.zeros(NUM_BINS)), where, values)

    def add_one(self, name: str, bin_: int, value: float) -> None:
        """Add to a sum."""
        self._sums.setdefault(name, np.zeros(NUM_BINS))[bin_] += value

    def sum_all(self, name: str) -> Floats:
        """A sum in every bin, those not used yet as well."""
        return self._sums.get(name, np.zeros(NUM_BINS))

    def sum(self, name: str) -> Floats:
        """A sum over time."""
        return self.sum_all(name)[: self.num_used]

    def most(self, name: str) -> Floats:
        """A maximum over time."""
        return self._most.get(name, np.zeros(NUM_BINS))[: self.num_used]

    def total(self, name: str) -> float:
        """A sum over all bins."""
        return float(self.sum_all(name).sum())

    def mean(self, name: str, per: str = "steps") -> Floats:
        """A sum for each unit of another, over time; NaN where there was none."""
        return ratio(self.sum(name), self.sum(per), np.nan)

    @property
    def middle_s(self) -> Floats:
        """The middle of each bin."""
        return np.asarray((np.arange(self.num_used) + 0.5) * self.width_s)


def idle_bins(bins: Bins) -> Bools:
    """Bins in which no step ended and none was under way."""
    ended = bins.sum("steps") > 0
    is_idle, first = ~ended, bins.middle_s - bins.most("longest_s")
    for bin_ in np.flatnonzero(ended):
        is_idle[max(int(first[bin_] / bins.width_s), 0) : bin_] = False
    return is_idle


def ratio(values: Floats, counts: Floats, none: float) -> Floats:
    """A value for each count, ``none`` where that is 0."""
    found = np.full(len(counts), none)
    np.divide(values, counts, out=found, where=counts > 0)
    return found


def add_steps(bins: Bins, chunk: Sequence[Ended]) -> Floats:
    """Add steps to the bins.

    Returns:
        Measured over predicted time of those that have both.
    """
    rows = np.array([_read(ended.step) for ended in chunk], float)
    of = dict(zip(_COLUMNS, rows.T, strict=True))
    where = (np.array([ended.end_s for ended in chunk]) / bins.width_s).astype(np.int64)
    duration_s = np.nan_to_num(of["duration_s"])
    prefill, predicted_s = of["num_prefill_tokens"], of["predicted_s"]
    tokens = np.array([ended.step.work.num_tokens if ended.step.work else 0 for ended in chunk])
    with_prefill, known = prefill > 0, (predicted_s > 0) & (duration_s > 0)
    idle_share = of["stage_idle_share"]
    sums = {
        "steps": np.ones(len(chunk)),
        "timed": (duration_s > 0).astype(float),
        "busy_s": duration_s,
        "known": known.astype(float),
        "predicted_s": np.where(known, predicted_s, 0.0),
        "measured_s": np.where(known, duration_s, 0.0),
        "prefill_tokens": prefill,
        "decode_tokens": tokens - prefill,
        "decodes": of["num_decodes"],
        "with_decodes": (of["num_decodes"] > 0).astype(float),
        "with_prefill": with_prefill.astype(float),
        "budget": np.where(with_prefill, of["token_budget"], 0.0),
        "paused": of["num_decodes_paused"],
        "between_s": of["between_s"],
        "in_flight": of["num_in_flight"],
        "running": of["num_running"],
        "waiting": of["num_waiting"],
        "aside": of["num_aside"],
        "preempted": of["num_preempted"],
        "kv_usage": of["kv_usage"],
        "stage_idle": np.nan_to_num(idle_share),
        "staged": (~np.isnan(idle_share)).astype(float),
    }
    for name, values in sums.items():
        bins.add(name, where, values)
    most = {"longest_s": duration_s, "most_waiting": sums["waiting"], "most_kv": sums["kv_usage"]}
    for name, values in (most | {"most_running": sums["running"]}).items():
        bins.raise_to(name, where, values)
    _add_reasons(bins, chunk, where, np.where(duration_s > 0, duration_s, predicted_s))
    return np.asarray(duration_s[known] / predicted_s[known])


def _add_reasons(
    bins: Bins, chunk: Sequence[Ended], where: npt.NDArray[np.int64], time_s: Floats
) -> None:
    limits = np.array([ended.step.limit for ended in chunk])
    waits = np.array([ended.step.num_waiting > 0 for ended in chunk])
    for limit in set(limits.tolist()):
        bins.add(f"limit {limit}", where, np.where(limits == limit, time_s, 0.0))
        bins.add(f"queued {limit}", where, np.where((limits == limit) & waits, time_s, 0.0))
    blocked = np.array([ended.step.admission_blocked_by or "" for ended in chunk])
    for reason in set(blocked.tolist()) - {""}:
        bins.add(f"held back {reason}", where, (blocked == reason).astype(float))
    for ended, bin_ in zip(chunk, where.tolist(), strict=True):
        for name, counts in (("relegated", ended.step.relegated), ("shed", ended.step.shed)):
            if counts:
                bins.add_one(name, bin_, sum(counts.values()))


def add_waits(bins: Bins, of: str, rows: Floats) -> None:
    """Add waits for tokens of one class to its series.

    Args:
        bins: the bins.
        of: what its series are called.
        rows: of each step that ended some: when it did, their number, those that were late, their
            mean, the longest, its objective or NaN.
    """
    end_s, num, late, mean_s, longest_s, objective_s = rows.T
    where = (end_s / bins.width_s).astype(np.int64)
    asked = ~np.isnan(objective_s)
    sums = {
        "num": num,
        "late": late,
        "total_s": num * mean_s,
        "asked": asked.astype(float),
        "objective_s": np.where(asked, objective_s, 0.0),
    }
    for name, values in sums.items():
        bins.add(f"{of} {name}", where, values)
    bins.raise_to(f"{of} longest_s", where, longest_s)
