"""In which order prompts are served, where there is an objective for the first token."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Any

_MEMORY_REQUESTS = 1000


@dataclass(slots=True)
class PromptDeadlines:
    """When the first token of a prompt is due.

    A prompt of mean length is due one objective after it came, one twice as long two.
    So short prompts overtake long ones, but only for so long: nobody waits for ever.
    It is the hybrid priority of Niyama (arXiv 2503.22562, section 3), its weight of a
    prefill token being the objective over the mean length.

    Attributes:
        ttft_s: objective for the time to first token, in seconds.
        mean_tokens: prefill tokens of a prompt, on average.
    """

    ttft_s: float
    mean_tokens: float = 0.0
    _num_seen: int = 0

    def observe(self, num_tokens: int) -> None:
        """Note the prefill tokens of a request that came."""
        self._num_seen = min(self._num_seen + 1, _MEMORY_REQUESTS)
        self.mean_tokens += (num_tokens - self.mean_tokens) / self._num_seen

    def due_s(self, arrival_s: float, num_tokens: int, has_begun: bool = False) -> float:
        """When a request is due, on the clock of its arrival, in seconds.

        Args:
            arrival_s: when it came.
            num_tokens: prefill tokens left.
            has_begun: whether tokens of it are out already, so that a gap grows: now.
        """
        if has_begun:
            return -inf
        return arrival_s + self.ttft_s * num_tokens / max(self.mean_tokens, 1.0)


@dataclass(slots=True)
class Playback:
    """When each request's next token is due.

    A token is due one objective after the one before it was due, or, if that one was
    late, after it came.

    Attributes:
        tbt_s: objective for the time between tokens, in seconds.
    """

    tbt_s: float
    _due_s: dict[str, float] = field(default_factory=dict)

    def played(self, request_id: str, num_tokens: int, now_s: float) -> None:
        """Note that a request got tokens."""
        due_s = max(self._due_s.get(request_id, now_s), now_s)
        self._due_s[request_id] = due_s + num_tokens * self.tbt_s

    def follow(self, answers: Mapping[int, Any], now_s: float) -> None:
        """Note what a step brought.

        Args:
            answers: vLLM's ``EngineCoreOutputs`` of each client.
            now_s: when it came.
        """
        for answer in chain.from_iterable(group.outputs for group in answers.values()):
            if answer.finish_reason is None:
                self.played(answer.request_id, len(answer.new_token_ids), now_s)
            else:
                self.forget((answer.request_id,))

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop requests that have ended."""
        for request_id in request_ids:
            self._due_s.pop(request_id, None)

    def slack_s(self, begin_s: float) -> float:
        """How much longer than the objective a step may take without a token being late.

        Args:
            begin_s: when the step begins.

        Returns:
            0 or more, in seconds; infinite if no request decodes.
        """
        first_due_s = min(self._due_s.values(), default=inf)
        return max(first_due_s - begin_s - self.tbt_s, 0.0)
