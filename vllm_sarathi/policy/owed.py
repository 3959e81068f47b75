"""Batches of prefill that are owed to those that stepped aside."""

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from vllm_sarathi.policy.batch_builder import MIN_PREFILL_TOKENS
from vllm_sarathi.policy.place import Entry, Place, Places

AGEING = 100
"""One batch of prefill in so many goes to those that stepped aside: overload costs the others 1%
of their prefill. Measured at 1.5 times capacity, three seeds: goodput of conversations on an A100
0.749 (0.755 without; 0.745 for one in 40), of chats beside prompts of 100,000 tokens on an H100
0.886 (0.888; 0.879)."""

_MOST_BLOCKED = 256
"""How many requests an owed batch passes over, because vLLM could not admit them."""


@dataclass(slots=True)
class OwedBatches:
    """Counts the prefill of others until a batch is owed, and knows who got one.

    Attributes:
        ageing: one batch of prefill in so many goes to those that stepped aside.
        batch_tokens: prefill tokens of a batch: those of a full step.
        num_tokens: prefill tokens of others since the last batch.
        blocked: requests that vLLM could not admit for it, so that it goes to the next one.
    """

    ageing: int = AGEING
    batch_tokens: int = 512
    num_tokens: int = 0
    blocked: set[Any] = field(default_factory=set)
    _ends: WeakKeyDictionary[Any, int] = field(default_factory=WeakKeyDictionary)

    @property
    def is_due(self) -> bool:
        """Whether a batch is owed."""
        return self.num_tokens >= self.ageing * self.batch_tokens

    def count(self, place: Place) -> None:
        """Count the prefill of a request that was taken.

        One in the prefix cache counts as some: it takes a place among those that run.
        """
        self.num_tokens += max(place.num_tokens, MIN_PREFILL_TOKENS)

    def uncount(self, num_tokens: int) -> None:
        """Count so many tokens less: what a request that was put back had added.

        A negative number gives back what granting it a batch had taken off.
        """
        self.num_tokens = max(self.num_tokens - num_tokens, 0)

    def grant(self, place: Place) -> None:
        """Give a request the batch that is owed."""
        self.num_tokens = 0
        self._ends[place.request] = place.num_tokens - self.batch_tokens

    def is_at_its_batch(self, place: Place) -> bool:
        """Whether a request has not used up the batch that it got."""
        return place.num_tokens > self._ends.get(place.request, place.num_tokens)

    def begin_anew(self, request: Any) -> None:
        """Forget the batch that a request got: it waits again."""
        self._ends.pop(request, None)

    def block(self, request: Any) -> None:
        """Note that a request could not be admitted for its batch."""
        if len(self.blocked) < _MOST_BLOCKED:
            self.blocked.add(request)

    def first(self, aside: Places) -> Entry | None:
        """The first of those that stepped aside which can take a batch; else the first of all."""
        if self.blocked:
            for entry in aside:
                if entry[-1].request not in self.blocked:
                    return entry
        return aside.first()
