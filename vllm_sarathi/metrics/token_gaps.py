"""Gaps between tokens and answers that ended, for one line of the step log."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.policy.answers import NewTokens
from vllm_sarathi.policy.deadlines import Promise


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
            self.request_id = answer.request.request_id
            self.was_preempted = answer.was_preempted

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


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came.

    Attributes:
        request_id: its id.
        arrived_s: when it arrived, since the epoch.
        num_prompt: its prompt's tokens.
        num_cached: those of them that the prefix cache held.
        priority: vLLM's priority.
    """

    request_id: str
    arrived_s: float
    num_prompt: int
    num_cached: int
    priority: int = 0


@dataclass(slots=True)
class FollowedAnswer:
    """An answer whose tokens are awaited.

    Attributes:
        request: what it answers.
        qos: its class.
        ttft_s: objective for its first token.
        gap_s: objective for its gaps; where ``is_auto`` that of the step counts.
        arrival_s: when its request arrived, on the clock of its tokens.
        last_s: when its last token came; when its request arrived before the first.
        first_s: when its first token came.
        longest_s: its longest gap.
        num_tokens: its tokens so far.
    """

    request: Asked
    qos: str
    ttft_s: float
    gap_s: float
    is_auto: bool
    arrival_s: float
    last_s: float = field(init=False)
    first_s: float | None = None
    longest_s: float = 0.0
    num_tokens: int = 0
    was_preempted: bool = False

    def __post_init__(self) -> None:
        self.last_s = self.arrival_s

    def line(self, was_aborted: bool) -> dict[str, Any]:
        """Its part of a line, once its last token has come."""
        assert self.first_s is not None
        said: dict[str, Any] = {
            "request_id": self.request.request_id,
            "qos": self.qos,
            "arrived_s": round(self.request.arrived_s, 6),
            "num_prompt_tokens": self.request.num_prompt,
            "num_cached_tokens": self.request.num_cached,
            "num_output_tokens": self.num_tokens,
            "ttft_s": round(self.first_s - self.arrival_s, 6),
            "e2e_s": round(self.last_s - self.arrival_s, 6),
            "longest_gap_s": round(self.longest_s, 6),
        }
        if self.request.priority:
            said["priority"] = self.request.priority
        return said | {"was_aborted": True} if was_aborted else said


@dataclass(slots=True)
class TokenGaps:
    """Follows all answers while there is a step log."""

    _answers: dict[str, FollowedAnswer] = field(default_factory=dict)
    _gaps: dict[str, Waits] = field(default_factory=dict)
    _first: dict[str, Waits] = field(default_factory=dict)
    _ended: list[dict[str, Any]] = field(default_factory=list)

    def expect(self, request: Asked, asked: RequestObjectives, arrival_s: float) -> None:
        """Note that a first token is on its way; nothing new of a request that is known."""
        if request.request_id not in self._answers:
            promise = Promise.of(asked)
            self._answers[request.request_id] = FollowedAnswer(
                request, asked.qos, promise.ttft_s, promise.stall_s, promise.is_auto, arrival_s
            )

    def preempted(self, request_ids: Iterable[str]) -> None:
        """Note whose prefill begins anew."""
        for request_id in request_ids:
            if answer := self._answers.get(request_id):
                answer.was_preempted = True

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop those that have ended: who is still known here was aborted."""
        for request_id in request_ids:
            self._end(self._answers.pop(request_id, None), was_aborted=True)

    def _end(self, answer: FollowedAnswer | None, *, was_aborted: bool = False) -> None:
        if answer is not None and answer.num_tokens:
            self._ended.append(answer.line(was_aborted))

    def came(self, outputs: Iterable[NewTokens], now_s: float, auto_s: float | None) -> None:
        """Note what a step brought: a plain loop, for a thousand requests get a token each.

        Args:
            outputs: what each request got.
            now_s: when that came.
            auto_s: objective of the step for those that follow decode-only steps.
        """
        answers, gaps = self._answers, self._gaps
        ended: list[str] = []
        derived_s = auto_s or inf
        for output in outputs:
            answer = answers.get(output.request_id)
            if answer is None or not output.new_token_ids:
                continue
            waited_s = now_s - answer.last_s
            answer.last_s = now_s
            answer.num_tokens += len(output.new_token_ids)
            if output.finish_reason is not None:
                ended.append(output.request_id)
            if answer.first_s is None:
                answer.first_s = now_s
                self._first.setdefault(answer.qos, Waits()).add(answer, waited_s, answer.ttft_s)
                continue
            if waited_s > answer.longest_s:
                answer.longest_s = waited_s
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
        for request_id in ended:
            self._end(answers.pop(request_id))

    def take(self) -> dict[str, Any]:
        """What came since the last call, for a line."""
        said: dict[str, Any] = {
            name: {qos: waits.line() for qos, waits in by_class.items()}
            for name, by_class in (("gaps", self._gaps), ("first_tokens", self._first))
            if by_class
        }
        if self._ended:
            said["requests"] = self._ended
        self._gaps, self._first, self._ended = {}, {}, []
        return said
