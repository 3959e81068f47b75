"""Speculative decoding: how many drafts a step verifies, and which of them are accepted."""

from dataclasses import dataclass, field
from itertools import islice, takewhile
from random import Random
from typing import Any
from weakref import WeakKeyDictionary


@dataclass(frozen=True, slots=True)
class Speculation:
    """A drafter beside the model, as EAGLE is.

    Args:
        num_tokens: drafts of a request that a step verifies, vLLM's ``num_speculative_tokens``.
        acceptance: probability that a draft is accepted if those before it are. In the same
            request and at the same position a draft is accepted under every scheduler or none.
        draft_s: seconds that drafting one position takes, for all requests of a step together:
            the drafter's weights are read once for each. Drafting is part of the step.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    num_tokens: int
    acceptance: float
    draft_s: float = 0.0

    def __post_init__(self) -> None:
        if type(self.num_tokens) is not int or self.num_tokens < 1:
            raise ValueError(f"num_tokens={self.num_tokens!r} must be a whole number, 1 or more")
        if not 0 <= self.acceptance <= 1:
            raise ValueError(f"acceptance={self.acceptance!r} must be a probability from 0 to 1")
        if not self.draft_s >= 0:
            raise ValueError(f"draft_s={self.draft_s!r} must be 0 seconds or more")

    @property
    def drafting_s(self) -> float:
        """Seconds that a step's drafts take: one position after the other."""
        return self.num_tokens * self.draft_s


@dataclass(frozen=True, slots=True)
class Drafts:
    """The drafts of a run.

    Args:
        speculation: how many, and how good.
        seed: of which are accepted.
    """

    speculation: Speculation
    seed: int
    _are_right: WeakKeyDictionary[Any, list[bool]] = field(default_factory=WeakKeyDictionary)

    def num_accepted(self, request: Any, num_drafts: int) -> int:
        """How many drafts for the next tokens of a vLLM request are accepted: up to a wrong one."""
        position = request.num_output_tokens
        if not position:
            return 0  # vLLM pads a first step for its shape; nothing was drafted yet
        are_right = self._are_right.get(request)
        if are_right is None:
            draw = Random(f"{self.seed} {request.request_id}").random
            rate = self.speculation.acceptance
            are_right = [draw() < rate for _ in range(request.max_tokens)]
            self._are_right[request] = are_right
        return sum(takewhile(bool, islice(are_right, position, position + num_drafts)))

    def of(self, request_ids: list[str]) -> Any:
        """What vLLM's model runner drafted after a step: token 0 at each position."""
        from vllm.v1.outputs import DraftTokenIds

        num_tokens = self.speculation.num_tokens
        return DraftTokenIds(request_ids, [[0] * num_tokens for _ in request_ids])
