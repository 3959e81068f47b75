"""Gaps between tokens, summed up by class of objectives for one line of the step log."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.policy.deadlines import NewTokens, Promise


@dataclass(slots=True)
class Waits:
    """Waits for tokens of one class.

    Attributes:
        num: how many ended.
        total_s: all of them together.
        longest_s: the longest.
        request_id: whose that was.
        objective_s: objective that it had; infinite for none.
        num_late: how many were longer than their objective.
        was_preempted: whether the longest spans a preemption.
    """

    num: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    request_id: str = ""
    objective_s: float = inf
    num_late: int = 0
    was_preempted: bool = False

    def add(self, answer: "FollowedAnswer", waited_s: float, objective_s: float) -> None:
        """Note the end of a wait."""
        self.num += 1
        self.total_s += waited_s
        if waited_s > objective_s:
            self.num_late += 1
        if waited_s > self.longest_s:
            self.longest_s, self.objective_s = waited_s, objective_s
            self.request_id, self.was_preempted = answer.request_id, answer.was_preempted

    def line(self) -> dict[str, Any]:
        """Its part of a line."""
        said: dict[str, Any] = {
            "num": self.num,
            "mean_s": round(self.total_s / self.num, 6),
            "longest_s": round(self.longest_s, 6),
            "request_id": self.request_id,
            "objective_s": None if self.objective_s == inf else self.objective_s,
            "num_late": self.num_late,
        }
        return said | {"was_preempted": True} if self.was_preempted else said


@dataclass(slots=True)
class FollowedAnswer:
    """An answer whose tokens are awaited.

    Attributes:
        request_id: of its request.
        qos: its class.
        ttft_s: objective for its first token.
        gap_s: objective for its gaps; where ``is_auto`` that of the step counts.
        last_s: when its last token came; when its request arrived before the first.
    """

    request_id: str
    qos: str
    ttft_s: float
    gap_s: float
    is_auto: bool
    last_s: float
    has_begun: bool = False
    was_preempted: bool = False


@dataclass(slots=True)
class TokenGaps:
    """Follows all answers while there is a step log."""

    _answers: dict[str, FollowedAnswer] = field(default_factory=dict)
    _gaps: dict[str, Waits] = field(default_factory=dict)
    _first: dict[str, Waits] = field(default_factory=dict)

    def expect(self, request_id: str, asked: RequestObjectives, arrival_s: float) -> None:
        """Note that a first token is on its way; nothing new of a request that is known."""
        if request_id not in self._answers:
            promise = Promise.of(asked)
            self._answers[request_id] = FollowedAnswer(
                request_id, asked.qos, promise.ttft_s, promise.stall_s, promise.is_auto, arrival_s
            )

    def preempted(self, request_ids: Iterable[str]) -> None:
        """Note whose prefill begins anew."""
        for request_id in request_ids:
            if answer := self._answers.get(request_id):
                answer.was_preempted = True

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop those that have ended."""
        for request_id in request_ids:
            self._answers.pop(request_id, None)

    def came(self, outputs: Iterable[NewTokens], now_s: float, auto_s: float | None) -> None:
        """Note what a step brought: a plain loop, for a thousand requests get a token each.

        Args:
            outputs: what each request got.
            now_s: when that came.
            auto_s: objective of the step for those that follow decode-only steps.
        """
        answers, gaps = self._answers, self._gaps
        derived_s = auto_s or inf
        for output in outputs:
            answer = answers.get(output.request_id)
            if answer is None or not output.new_token_ids:
                continue
            waited_s = now_s - answer.last_s
            answer.last_s = now_s
            if not answer.has_begun:
                answer.has_begun = True
                self._first.setdefault(answer.qos, Waits()).add(answer, waited_s, answer.ttft_s)
                continue
            waits = gaps.get(answer.qos)
            if waits is None:
                waits = gaps[answer.qos] = Waits()
            objective_s = derived_s if answer.is_auto else answer.gap_s
            if waited_s > waits.longest_s or waited_s > objective_s or answer.was_preempted:
                waits.add(answer, waited_s, objective_s)
                answer.was_preempted = False
            else:  # most of them: what add() does, without a call
                waits.num += 1
                waits.total_s += waited_s

    def take(self) -> dict[str, Any]:
        """What came since the last call, for a line."""
        said = {
            name: {qos: waits.line() for qos, waits in by_class.items()}
            for name, by_class in (("gaps", self._gaps), ("first_tokens", self._first))
            if by_class
        }
        self._gaps, self._first = {}, {}
        return said
