"""Everything that the page says, summed up in one pass over a step log."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from vllm_sarathi.report.lines import Begin, Step, StepLogFile
from vllm_sarathi.report.series import Bins, Ended, Floats, add_steps, add_waits
from vllm_sarathi.report.worst import WorstGaps

_CHUNK = 4096
_RATIO_EDGES = np.geomspace(0.1, 100.0, 601)
"""Edges of the histogram of measured over predicted times: steps of 1.2%."""


@dataclass(slots=True)
class ClassTotals:
    """Waits of one class, all together: its last objective, the longest wait and how many."""

    num: int = 0
    num_late: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    objective_s: float | None = None

    def add(self, rows: Floats) -> None:
        """Add those of some steps, as ``add_waits`` takes them."""
        _, num, late, mean_s, longest_s, objective_s = rows.T
        self.num += int(num.sum())
        self.num_late += int(late.sum())
        self.total_s += float((num * mean_s).sum())
        self.longest_s = max(self.longest_s, float(longest_s.max()))
        asked = objective_s[~np.isnan(objective_s)]
        if len(asked):
            self.objective_s = float(asked[-1])

    @property
    def mean_s(self) -> float:
        """The mean wait."""
        return self.total_s / self.num

    @property
    def late_share(self) -> float:
        """Share of them that were longer than their objective."""
        return self.num_late / self.num


@dataclass(slots=True)
class Summary:
    """The last run in a step log: a server that starts anew appends to it.

    Attributes:
        begin: what it was recorded with; defaults where the file lacks its beginning.
        first_s: when its first step began, since the epoch.
        num_runs: runs in the file.
        num_steps: steps of the last one.
        end_s: length of its time axis.
        idle_s: time on it in which no step ran.
        bins: sums over time.
        gaps: by class.
        first_tokens: by class.
        worst: the worst gaps.
        faults: by where they happened.
        last_error: the last of them.
    """

    begin: Begin = field(default_factory=Begin)
    first_s: float = 0.0
    num_runs: int = 1
    num_steps: int = 0
    end_s: float = 0.0
    idle_s: float = 0.0
    bins: Bins = field(default_factory=Bins)
    gaps: dict[str, ClassTotals] = field(default_factory=dict)
    first_tokens: dict[str, ClassTotals] = field(default_factory=dict)
    worst: WorstGaps = field(default_factory=WorstGaps)
    faults: Counter[str] = field(default_factory=Counter)
    last_error: str = ""
    _ratios: Floats = field(default_factory=lambda: np.zeros(len(_RATIO_EDGES) + 1))
    _chunk: list[Ended] = field(default_factory=list)
    _waits: dict[tuple[str, str], list[tuple[float, ...]]] = field(default_factory=dict)

    @property
    def num_stages(self) -> int:
        """Pipeline stages."""
        return self.begin.num_stages

    @property
    def settings(self) -> dict[str, Any]:
        """The settings."""
        return self.begin.settings

    def tpot_s(self, qos: str) -> float | None:
        """The objective of a class for the mean of its gaps."""
        return self.begin.classes.get(qos, {}).get("tpot_s")

    def ratio_quantile(self, quantile: float) -> float | None:
        """A quantile of measured over predicted step time."""
        total = self._ratios.sum()
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self._ratios), quantile * total))
        return float(_RATIO_EDGES[min(place, len(_RATIO_EDGES) - 1)])

    def add(self, step: Step) -> None:
        """Add a step or a fault."""
        if step.work is None:
            self.faults[step.fault or ""] += 1
            self.last_error = step.error
            self.worst.fault(self.end_s)
            return
        ended = self._place(step)
        self.num_steps += 1
        self.worst.step(ended)
        self.bins.reach(ended.end_s)
        for kind, by_class in (("gap", step.gaps), ("first", step.first_tokens)):
            for qos, waits in by_class.items():
                row = (
                    ended.end_s,
                    waits.num,
                    waits.num_late,
                    waits.mean_s,
                    waits.longest_s,
                    nan if waits.objective_s is None else waits.objective_s,
                )
                self._waits.setdefault((kind, qos), []).append(row)
        self._chunk.append(ended)
        if len(self._chunk) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Add what was kept back to be added together."""
        if self._chunk:
            ratios = add_steps(self.bins, self._chunk)
            places = np.searchsorted(_RATIO_EDGES, ratios)
            self._ratios += np.bincount(places, minlength=len(self._ratios))
            self._chunk.clear()
        for (kind, qos), rows in self._waits.items():
            totals = self.gaps if kind == "gap" else self.first_tokens
            table = np.array(rows)
            totals.setdefault(qos, ClassTotals()).add(table)
            add_waits(self.bins, f"{kind} {qos}", table)
        self._waits.clear()

    def _place(self, step: Step) -> Ended:
        """Put a step on the time axis; time never runs backwards there."""
        duration_s = step.duration_s or 0.0
        if not self.num_steps:
            self.first_s = step.ended_s - duration_s
        end_s = max(step.ended_s - self.first_s, self.end_s)
        begin_s = end_s - duration_s if step.duration_s else self.end_s
        ended = Ended(step, max(begin_s, self.end_s), end_s)
        self.idle_s += ended.begin_s - self.end_s
        self.end_s = ended.end_s
        return ended


def summarize(path: Path) -> tuple[Summary, StepLogFile]:
    """Sum up the last run in a step log that has any step.

    Raises:
        ValueError: the file cannot be read, or holds no step.
    """
    file = StepLogFile(path)
    summary, num_runs, begin = Summary(), 0, None
    for step in file:
        if step.begin is not None:
            begin = step.begin
            continue
        if step.work is None and begin is not None:
            continue  # a fault before the first step: that run has nothing to show yet
        if begin is not None or not num_runs:
            num_runs += 1
            begin = begin or Begin()
            summary, begin = Summary(begin, worst=WorstGaps(begin.num_stages)), None
        summary.add(step)
    summary.flush()
    summary.num_runs = num_runs
    if not summary.num_steps:
        raise ValueError(_no_steps(file))
    return summary, file


def _no_steps(file: StepLogFile) -> str:
    name = f"step log {str(file.path)!r}"
    if not file.num_lines:
        return f"{name} is empty: it gets a line when the server's first step has ended"
    if file.first_bad is None and not file.is_cut_off:
        return f"{name} holds no step yet, only what it was recorded with"
    bad = file.first_bad or file.num_lines
    return (
        f"{name} holds no step: line {bad} is none; allowed is a file that --sarathi-step-log wrote"
    )


def main_class(totals: dict[str, ClassTotals]) -> Sequence[str]:
    """The classes, the one with most waits first."""
    return sorted(totals, key=lambda qos: totals[qos].num, reverse=True)
