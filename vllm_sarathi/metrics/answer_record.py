"""How far one answer has met the objectives of its request, told of few of its tokens."""

from dataclasses import dataclass, field
from math import ceil, inf
from typing import Protocol

from vllm_sarathi.objectives import RequestObjectives


class AnswerRecorder(Protocol):
    """Who counts what becomes of answers."""

    def began(self, objectives: RequestObjectives, slack_s: float) -> None:
        """A first token came, ``slack_s`` before it was due."""

    def late_tokens(self, num_tokens: int) -> None:
        """Tokens came after a longer gap than a strict objective allows."""

    def ended(
        self,
        objectives: RequestObjectives,
        met: dict[str, bool],
        took_s: dict[str, float],
        fluidity: float | None,
    ) -> None:
        """A request finished that met, or missed, each of these objectives in such times."""


@dataclass(slots=True)
class Fluidity:
    """``latency.RequestTimes.fluidity``, told of late tokens only.

    Attributes:
        due_s: when the first token would be due if no deadline had moved.
        pace_s: time from one deadline to the next.
        num_late: tokens that came late.
        num_missed: deadlines that passed while they were awaited.
    """

    due_s: float
    pace_s: float
    num_late: int = 0
    num_missed: int = 0

    def came(self, index: int, now_s: float) -> None:
        """Note the token of an index that may be late."""
        late_s = now_s - self.due_s - index * self.pace_s
        if late_s > 0:
            self.num_late += 1
            self.num_missed += ceil(late_s / self.pace_s)
            self.due_s += late_s

    def of(self, num_tokens: int) -> float:
        """Share of the deadlines of so many tokens that were met."""
        num_met = num_tokens - self.num_late
        return num_met / (num_met + self.num_missed)


@dataclass(slots=True)
class AnswerRecord:
    """Listens to the tokens of one answer. Memory and time do not grow with its length.

    Attributes:
        recorder: counts.
        objectives: what its request asked.
        arrival_s: when its request came, on the clock of its tokens.
        longest_gap_s: gap between two tokens that is in time; infinite for any.
    """

    recorder: AnswerRecorder
    objectives: RequestObjectives
    arrival_s: float
    longest_gap_s: float = field(init=False)
    _num_late_gaps: int = 0
    _fluidity: Fluidity | None = None

    def __post_init__(self) -> None:
        asked = self.objectives
        self.longest_gap_s = inf if asked.tbt_s is None else asked.tbt_s
        pace_s = asked.tpot_s or asked.tbt_s
        if asked.ttft_s is not None and pace_s is not None:
            self._fluidity = Fluidity(self.arrival_s + asked.ttft_s, pace_s)

    def began(self, now_s: float, due_s: float) -> None:
        """The first token came, which was due at ``due_s``."""
        self.recorder.began(self.objectives, due_s - now_s)
        if self._fluidity:
            self._fluidity.came(0, now_s)

    def may_be_late(self, index: int, last_s: float, now_s: float) -> None:
        """The token of an index came, maybe late; the one before it came at ``last_s``."""
        if now_s - last_s > self.longest_gap_s:
            self._num_late_gaps += 1
            self.recorder.late_tokens(1)
        if self._fluidity:
            self._fluidity.came(index, now_s)

    def ended(self, num_tokens: int, first_s: float, last_s: float) -> None:
        """The last token came; the objectives are judged as ``latency.RequestTimes`` does."""
        times_s = {"ttft": first_s - self.arrival_s, "e2e": last_s - self.arrival_s}
        if num_tokens > 1:
            times_s["tpot"] = (last_s - first_s) / (num_tokens - 1)
        asked_s = self.objectives.by_kind_s
        took_s = {kind: time_s for kind, time_s in times_s.items() if kind in asked_s}
        # No later token has missed the objective for them.
        met = {kind: took_s.get(kind, 0.0) <= limit_s for kind, limit_s in asked_s.items()}
        if "tbt" in met:
            met["tbt"] = not self._num_late_gaps
        fluidity = self._fluidity.of(num_tokens) if self._fluidity else None
        self.recorder.ended(self.objectives, met, took_s, fluidity)
