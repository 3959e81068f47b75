"""What clients asked of an engine, and the tokens that they must get."""

from dataclasses import dataclass, field
from typing import Any

from vllm.v1.engine import FinishReason

from tests.support.scheduler_loop import next_token


@dataclass
class Turn:
    """One prompt and the limits of its answer.

    Attributes:
        prompt: token ids.
        max_tokens: most tokens of the answer.
        stops: token ids that end it.
    """

    prompt: list[int]
    max_tokens: int
    stops: frozenset[int] = frozenset()

    def answer(self, before: list[int], max_model_len: int) -> list[int]:
        """The answer's tokens, after what was said before."""
        known, tokens = [*before, *self.prompt], list[int]()
        while True:
            tokens.append(next_token([*known, *tokens]))
            is_full = len(tokens) >= self.max_tokens or len(known) + len(tokens) >= max_model_len
            if tokens[-1] in self.stops or is_full:
                return tokens


@dataclass
class Asked:
    """One request, or a session of several turns.

    Attributes:
        name: the request's id.
        max_model_len: most tokens that the model can hold.
        is_session: whether more turns may come.
        turns: what was asked.
        expected: the tokens of all answers, had it been alone.
        is_closed: whether no further turn comes.
        is_cut_off: whether its client went away, or vLLM gave it up.
    """

    name: str
    max_model_len: int
    is_session: bool = False
    turns: list[Turn] = field(default_factory=list)
    expected: list[int] = field(default_factory=list)
    is_closed: bool = False
    is_cut_off: bool = False
    _known: list[int] = field(default_factory=list)

    def ask(self, turn: Turn) -> None:
        """Add a turn. vLLM keeps of the answer before what was computed: all but its last token."""
        answer = turn.answer(self._known, self.max_model_len)
        self.turns.append(turn)
        self.expected += answer
        self._known += [*turn.prompt, *answer[:-1]]

    @property
    def num_known(self) -> int:
        """Tokens of the session so far."""
        return len(self._known)

    def is_answered(self, ends: list[Any]) -> bool:
        """Whether the answers are complete, as the finish reasons so far tell."""
        is_complete = len(ends) == len(self.turns) and FinishReason.ERROR not in ends
        return is_complete and (self.is_closed or not self.is_session)

    def has_ended(self, ends: list[Any]) -> bool:
        """Whether nothing more comes."""
        return self.is_cut_off or FinishReason.ERROR in ends or self.is_answered(ends)

    def check(self, ends: list[Any], tokens: list[int]) -> None:
        """The tokens so far are those that it would get alone: all of them, if it was answered."""
        assert tokens == self.expected[: len(tokens)], f"{self.name}: a token is lost or repeated"
        assert FinishReason.ABORT not in ends
        if self.is_answered(ends):
            assert tokens == self.expected, f"{self.name}: the answer ended early"
