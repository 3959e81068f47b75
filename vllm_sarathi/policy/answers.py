"""Answers that have begun: when their next tokens are due, and how long answers are."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean
from typing import Protocol

from vllm_sarathi.policy.deadlines import Promise

E2E_LENGTH = 2.0
"""How many times as long as the average an answer may be that has a deadline for its last token, to
come in time at its pace. Measured with a third each of chats, 60 s and 180 s to the last token, on
recorded conversations at 11 requests/s (A100): 99.8% of the requests in time; 98.6% with 3, for a
tighter pace leaves less time for prefill, and 92.0% without a pace."""

_MEMORY_ANSWERS = 500
"""Answers that the mean output length remembers."""

_STEP_WEIGHT = 1 / 50
"""Weight of the last step in what steps bring: it follows load within a second or two."""

_SURE_SHARE = 0.7
"""Share of the accepted drafts that an answer may count on: a short one may have less luck than the
mean. Measured on an A100 with 3 drafts of which 70% are accepted, at 1.5 times capacity: goodput of
conversations 0.772 with half, 0.776 with this, 0.766 with all, and their P99 of TPOT under an
objective of 50 ms 46, 48 and 53 ms; goodput of decodes alone 0.776, 0.796 and 0.807."""


class AnswerListener(Protocol):
    """Who is told of an answer's first and last token, and of those that may be late."""

    @property
    def longest_gap_s(self) -> float:
        """Gap between two tokens that is in time, in seconds; infinite for any."""

    def began(self, now_s: float, due_s: float) -> None:
        """The first token came."""

    def may_be_late(self, index: int, last_s: float, now_s: float) -> None:
        """A token came behind the mean pace, or after a long gap; ``last_s`` was the one before."""

    def ended(self, num_tokens: int, first_s: float, last_s: float) -> None:
        """The last token came."""


@dataclass(slots=True)
class Answer:
    """An answer that has begun. Asked and told in every step: nothing is computed twice.

    Attributes:
        promise: what its request was promised.
        first_s: when its first token came, or before that is due.
        end_due_s: when its last token is due; infinite where it was not promised.
        num_expected: tokens that it may have for the last one to come in time at its pace.
        last_s: when its last one came.
        num_tokens: tokens so far.
        due_s: when the next token is due by the mean pace; minus infinity before the first.
        pace_s: longest that steps may take on average.
        is_lost: whether the promise is broken for good: all that is left of it is that no
            gap is longer than a stall.
        listener: who is told of its tokens.
        tokens_per_step: tokens that it may expect of a step.
        tpot_s: mean time of a token that was promised.
        wanted_tpot_s: mean time of a token that is not promised, but wanted while prefill gets its
            share of the time: what was promised before it was lost, or what lets the last token
            come in time. Infinite for none.
        longest_gap_s: a longer gap stands out; minus infinity once the promise is broken.
    """

    promise: Promise
    first_s: float
    listener: AnswerListener | None = None
    end_due_s: float = inf
    num_expected: float = 1.0
    tokens_per_step: float = 1.0
    last_s: float = inf
    num_tokens: int = 0
    due_s: float = -inf
    pace_s: float = inf
    is_lost: bool = False
    tpot_s: float = field(init=False)
    wanted_tpot_s: float = inf
    longest_gap_s: float = inf
    _stall_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.pace_s = self.promise.pace_s(self.tokens_per_step)
        self.tpot_s, self._stall_s = self.promise.tpot_s, self.promise.stall_s
        if self.listener:
            self.longest_gap_s = self.listener.longest_gap_s

    def next_due_s(self, num_in_flight: int, begin_s: float) -> float:
        """When the token after those of so many steps in flight is due.

        They come when the next step begins.
        """
        if not self.num_tokens:
            return begin_s + self.pace_s
        due_s, last_s = self.due_s, self.last_s
        if num_in_flight:
            due_s += num_in_flight * self.tokens_per_step * self.tpot_s
            if begin_s > last_s:
                last_s = begin_s
        stalls_s = last_s + self._stall_s
        return due_s if due_s < stalls_s else stalls_s

    def next_wanted_s(self, num_in_flight: int) -> float:
        """When the token after those of so many steps in flight is wanted."""
        num_tokens = self.num_tokens + num_in_flight * self.tokens_per_step
        return self.first_s + num_tokens * self.wanted_tpot_s

    def stands_out(self, num_tokens: int, now_s: float) -> None:
        """Note that tokens come that are the first, late or after a long gap."""
        if not self.num_tokens:
            self._begin(now_s)
        else:
            self._may_be_late(num_tokens, now_s)

    def _begin(self, now_s: float) -> None:
        if self.listener:
            self.listener.began(now_s, self.first_s)
        is_late = now_s > self.first_s
        self.first_s = self.due_s = now_s
        self.wanted_tpot_s = max(self.end_due_s - now_s, 0.0) / self.num_expected
        if is_late:
            self._lose()

    def _may_be_late(self, num_tokens: int, now_s: float) -> None:
        if self.listener:
            self.listener.may_be_late(self.num_tokens, self.last_s, now_s)
        last_due_s = self.due_s + (num_tokens - 1) * self.tpot_s
        if now_s > last_due_s + self._stall_s:
            self._lose()

    def _lose(self) -> None:
        self.is_lost = True
        self.wanted_tpot_s = min(self.wanted_tpot_s, self.tpot_s)
        self.due_s, self.pace_s, self.longest_gap_s = inf, self._stall_s, -inf


class NewTokens(Protocol):
    """What a step brought to one request, as vLLM's ``EngineCoreOutput`` says it."""

    @property
    def request_id(self) -> str:
        """Whose it is."""

    @property
    def new_token_ids(self) -> Sequence[int]:
        """Its tokens."""

    @property
    def finish_reason(self) -> object | None:
        """Why it ended; None if it goes on."""


@dataclass(slots=True)
class Answers:
    """All answers that have begun and not ended, and how long answers are.

    Attributes:
        begun: by request.
        tokens_per_step: tokens that one of them may expect of a step: more than 1 where drafts are
            accepted.
    """

    begun: dict[str, Answer] = field(default_factory=dict)
    tokens_per_step: float = 1.0
    _num_tokens: float = 0.0
    _num_ended: float = 0.0
    _longest: int = 0

    @property
    def mean_output(self) -> float:
        """Output tokens of an answer, on average.

        All tokens over the answers that ended: an average over those alone would count
        short answers only while the long ones still run. No answer is taken to be longer on
        average than the longest so far.
        """
        return min(self._num_tokens / max(self._num_ended, 1.0), self._longest)

    def expect(
        self,
        request_id: str,
        promise: Promise,
        arrival_s: float,
        first_due_s: float,
        listener: AnswerListener | None = None,
    ) -> None:
        """Note that a first token is on its way, due at ``first_due_s``."""
        end_due_s = arrival_s + promise.e2e_s
        num_expected = max(E2E_LENGTH * self.mean_output, 1.0)
        self.begun[request_id] = Answer(
            promise, first_due_s, listener, end_due_s, num_expected, self.tokens_per_step
        )

    def count_drafts(self, outputs: Iterable[NewTokens]) -> None:
        """Learn from what a step brought, before that is noted: first tokens come alone."""
        begun = self.begun
        num_new = [
            len(output.new_token_ids)
            for output in outputs
            if (answer := begun.get(output.request_id)) and answer.num_tokens
        ]
        if num_new:
            expected = 1 + _SURE_SHARE * (fmean(num_new) - 1)
            self.tokens_per_step += _STEP_WEIGHT * (expected - self.tokens_per_step)

    def came(
        self, outputs: Iterable[NewTokens], now_s: float, cut_off: Collection[object] = ()
    ) -> None:
        """Note what a step brought.

        A thousand requests get a token in every step, hence a plain loop.

        Args:
            outputs: what each request got, those that are not followed included.
            now_s: when that came.
            cut_off: finish reasons of answers that do not tell how long answers are.
        """
        begun, longest, num_came = self.begun, self._longest, 0
        for output in outputs:
            answer = begun.get(output.request_id)
            if answer is None:
                continue
            reason, num_new = output.finish_reason, len(output.new_token_ids)
            num_tokens = answer.num_tokens + num_new
            if reason is not None and (reason in cut_off or not num_tokens):
                self.forget(output.request_id)
                continue
            if now_s > answer.due_s or now_s - answer.last_s > answer.longest_gap_s:
                answer.stands_out(num_new, now_s)
            answer.num_tokens, answer.last_s = num_tokens, now_s
            answer.due_s += num_new * answer.tpot_s
            num_came += num_new
            if num_tokens > longest:
                longest = num_tokens
            if reason is not None:
                self._ended(output.request_id, answer)
        self._longest = longest
        self._num_tokens += num_came

    def _ended(self, request_id: str, answer: Answer) -> None:
        keep = 1 - 1 / _MEMORY_ANSWERS
        self._num_ended = self._num_ended * keep + 1
        self._num_tokens *= keep
        del self.begun[request_id]
        if answer.listener:
            answer.listener.ended(answer.num_tokens, answer.first_s, answer.last_s)

    def forget(self, request_id: str) -> None:
        """Drop a request that was cut off: it does not tell how long answers are."""
        answer = self.begun.pop(request_id, None)
        if answer is not None:
            self._num_tokens = max(self._num_tokens - answer.num_tokens, 0.0)
