"""Token deadlines of a client that plays an answer back at a steady pace.

A client that reads at one token per TBT objective does not mind a token that comes late
after others came early: early tokens earn slack (Etalon, arXiv 2407.07000, section 4;
QoServe, arXiv 2503.22562, section 3). Slack lets one long step do what many short
ones would do slower.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Any


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
