"""The worst gaps: each is one incident, with the steps around it."""

from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf

from vllm_sarathi.report.causes import Cause, cause_of
from vllm_sarathi.report.lines import Waits
from vllm_sarathi.report.series import Ended

NUM_WORST = 8
NUM_RECENT = 96
"""Steps remembered: a gap that spans more is told from the last of them."""
NUM_AFTER = 12
"""Steps shown after the worst gap."""
_TOLERANCE_S = 1e-3
"""Gaps are measured by another clock than the ends of steps; no step is as short."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A long gap.

    Attributes:
        qos: the class of its request.
        waits: what is known of it.
        end_s: when the token came at last, on the time axis.
        cause: what made it long.
        sentence: the same in words.
        num_steps: steps within it.
    """

    qos: str
    waits: Waits
    end_s: float
    cause: Cause
    sentence: str
    num_steps: int

    @property
    def begin_s(self) -> float:
        """When the token before came."""
        return self.end_s - self.waits.longest_s

    @property
    def is_late(self) -> bool:
        """Whether it missed its objective."""
        return badness(self.waits)[0]


def badness(waits: Waits) -> tuple[bool, bool, float]:
    """Those that missed their objective are worst, then those that have one; then the longest."""
    objective_s, gap_s = waits.objective_s, waits.longest_s
    return gap_s > (objective_s or inf), objective_s is not None, gap_s


def _badness(incident: Incident) -> tuple[bool, bool, float]:
    return badness(incident.waits)


@dataclass(slots=True)
class WorstGaps:
    """Finds the worst gaps, and counts all late tokens by cause.

    Attributes:
        num_stages: pipeline stages.
        worst: the worst so far, the least bad first.
        late_by_cause: late tokens, by what made the longest gap of their step and class long.
        around: the steps around the worst one.
    """

    num_stages: int = 1
    worst: list[Incident] = field(default_factory=list)
    late_by_cause: Counter[Cause] = field(default_factory=Counter)
    around: list[Ended] = field(default_factory=list)
    recent: deque[Ended] = field(default_factory=lambda: deque(maxlen=NUM_RECENT))
    _fault_s: float = -inf
    _num_after: int = 0

    def fault(self, now_s: float) -> None:
        """Note a fault."""
        self._fault_s = now_s

    def step(self, ended: Ended) -> None:
        """Note a step and the gaps that ended with it."""
        self.recent.append(ended)
        if self._num_after:
            self._num_after -= 1
            self.around.append(ended)
        for qos, waits in ended.step.gaps.items():
            if waits.num_late or self._may_be_worst(waits):
                self._judge(qos, waits, ended)

    def ranked(self) -> list[Incident]:
        """The worst first."""
        return sorted(self.worst, key=_badness, reverse=True)

    def _may_be_worst(self, waits: Waits) -> bool:
        return len(self.worst) < NUM_WORST or badness(waits) > _badness(self.worst[0])

    def _judge(self, qos: str, waits: Waits, ended: Ended) -> None:
        begin_s = ended.end_s - waits.longest_s
        tolerance_s = min(_TOLERANCE_S, waits.longest_s / 2)
        inside = [each for each in self.recent if each.end_s > begin_s + tolerance_s] or [ended]
        had_fault = self._fault_s >= begin_s - _TOLERANCE_S
        cause, sentence = cause_of(waits, inside, self.num_stages, had_fault)
        self.late_by_cause[cause] += waits.num_late
        incident = Incident(qos, waits, ended.end_s, cause, sentence, len(inside))
        if self._keep(incident):
            self.around = list(self.recent)
            self._num_after = NUM_AFTER

    def _keep(self, incident: Incident) -> bool:
        """Put an incident among the worst if it is; whether it is the very worst.

        Gaps that overlap, of any class, are one incident: the worst of them stands for it.
        """
        same = [
            each
            for each in self.worst
            if each.end_s > incident.begin_s + _TOLERANCE_S
            and each.begin_s < incident.end_s - _TOLERANCE_S
        ]
        if any(_badness(each) >= _badness(incident) for each in same):
            return False
        is_worst = all(_badness(each) < _badness(incident) for each in self.worst)
        others = [each for each in self.worst if each not in same]
        self.worst = sorted([*others, incident], key=_badness)[-NUM_WORST:]
        return is_worst
