"""A request's place among those that wait, and places in the order of a key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol

_FEW = 64
"""Entries of places that left, at which a heap is not worth rebuilding."""


@dataclass(slots=True, eq=False)
class Place:
    """A request's place in the order.

    Attributes:
        request: whose; opaque here.
        arrival_s: when it came.
        due_s: when its first token is due; infinite where none is.
        num_tokens: prefill tokens that it has left.
        importance: higher is served first.
        priority: vLLM's, lower is served first, before all else.
        block_hashes: of its prompt's blocks, each of which stands for all before it too.
        has_begun: whether tokens of it are out already, so that a gap grows.
        is_aside: whether it steps aside: it cannot be in time, or has no time to keep.
        is_gone: whether entries with it no longer count.
        number: of equals, the lower is served first; the order gives it.
    """

    request: Any
    arrival_s: float
    due_s: float
    num_tokens: int
    importance: int = 0
    priority: int = 0
    block_hashes: Sequence[bytes] = ()
    has_begun: bool = False
    is_aside: bool = False
    is_gone: bool = False
    number: int = 0


Entry = tuple[Any, int, int, Place]
"""A key, the number of the place, the number of the entry, and the place."""


class Places(Protocol):
    """Places in some order. ``first`` and the first few of all cost little, however many."""

    def push(self, key: Any, place: Place) -> None:
        """Add a place; lower keys come first."""

    def first(self) -> Entry | None:
        """The entry that comes first."""

    def shrink(self, num_live: int) -> None:
        """Forget places that left; ``num_live`` did not."""

    def __iter__(self) -> Iterator[Entry]:
        """Entries in order."""


@dataclass(slots=True)
class PlaceHeap:
    """Places in the order of a key. O(log n) a change: who left is passed over.

    Attributes:
        is_aside: whether it holds those that stepped aside, or those that did not.
    """

    is_aside: bool
    _entries: list[Entry] = field(default_factory=list)
    _sequence: Iterator[int] = field(default_factory=count)

    def push(self, key: Any, place: Place) -> None:
        """Add a place; of equal keys the lower number comes first."""
        heappush(self._entries, (key, place.number, next(self._sequence), place))

    def first(self) -> Entry | None:
        """The entry with the least key."""
        entries = self._entries
        while entries and not self._is_live(entries[0]):
            heappop(entries)
        return entries[0] if entries else None

    def shrink(self, num_live: int) -> None:
        """Rebuild it once most of its entries are of places that left; ``num_live`` did not."""
        if len(self._entries) > 2 * num_live + _FEW:
            self._entries = [entry for entry in self._entries if self._is_live(entry)]
            heapify(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Its entries in order. The first few cost little, however many there are."""
        front = [(self._entries[0], 0)] if self._entries else []
        while front:
            entry, at = heappop(front)
            if self._is_live(entry):
                yield entry
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(self._entries):
                    heappush(front, (self._entries[child], child))

    def _is_live(self, entry: Entry) -> bool:
        place = entry[-1]
        return not place.is_gone and place.is_aside == self.is_aside
