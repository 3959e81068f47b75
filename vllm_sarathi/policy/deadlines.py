"""When tokens are due.

A request has objectives; from them follows the deadline of its next token. Order, budget,
pauses, admission and who steps aside follow from deadlines (Niyama/QoServe, arXiv 2503.22562,
section 3.1; Etalon, arXiv 2407.07000, section 4).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import inf

from vllm_sarathi.objectives import RequestObjectives


@dataclass(frozen=True, slots=True)
class Promise:
    """What a request was promised, in seconds; infinite is nothing.

    Attributes:
        ttft_s: arrival to first token.
        tpot_s: mean time of each later token: early tokens earn slack for later ones.
        stall_s: every gap between tokens, however early those before it came.
        e2e_s: arrival to last token.
        importance: who steps aside last; higher matters more.
        is_auto: whether gaps follow the objective that is derived from decode-only steps.
    """

    ttft_s: float = inf
    tpot_s: float = inf
    stall_s: float = inf
    e2e_s: float = inf
    importance: int = 0
    is_auto: bool = False

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, objectives: RequestObjectives) -> "Promise":
        """The promise that objectives come to.

        A gap objective that may be exceeded up to ``max_stall_s`` is a mean one: one token
        per gap, early ones earning slack.
        """
        tpot_s, tbt_s = _or_inf(objectives.tpot_s), _or_inf(objectives.tbt_s)
        stall_s = _or_inf(objectives.max_stall_s)
        if tbt_s < stall_s < inf:
            tpot_s, tbt_s = min(tpot_s, tbt_s), inf
        return cls(
            ttft_s=_or_inf(objectives.ttft_s),
            tpot_s=tpot_s,
            stall_s=min(stall_s, tbt_s),
            e2e_s=_or_inf(objectives.e2e_s),
            importance=objectives.importance,
            is_auto=objectives.auto_tbt,
        )

    def pace_s(self, tokens_per_step: float = 1.0) -> float:
        """Longest that steps may take on average while it decodes, in seconds.

        Args:
            tokens_per_step: tokens that it may expect of a step.
        """
        return min(tokens_per_step * self.tpot_s, self.stall_s)

    @property
    def is_uniform(self) -> bool:
        """Whether every token is due so long after the one before: nothing is to be kept."""
        return self.ttft_s == self.tpot_s == self.e2e_s == inf

    def first_due_s(self, arrival_s: float, decode_s: float) -> float:
        """When the first token is due.

        Args:
            arrival_s: when the request came.
            decode_s: what its later tokens will take, expected: time left out of ``e2e_s``.
        """
        return arrival_s + min(self.ttft_s, self.e2e_s - decode_s)


def _or_inf(seconds: float | None) -> float:
    return inf if seconds is None else seconds
