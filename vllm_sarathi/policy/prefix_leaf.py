"""Requests in the order of their block hashes: who shares a prefix is a neighbour."""

from bisect import bisect_left
from dataclasses import dataclass, field, replace

from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.state import Rank


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A request in the tree of prefixes.

    Attributes:
        rank: requests of a lower rank come first.
        place: the request's.
        hashes: of the blocks that it had when it came, for vLLM's list of them changes.
    """

    rank: Rank
    place: Place
    hashes: tuple[bytes, ...]

    def num_shared(self, other: "Leaf") -> int:
        """Blocks that both begin with. A block's hash stands for those before it, too."""
        most = min(len(self.hashes), len(other.hashes))
        return bisect_left(range(most), True, key=lambda at: self.hashes[at] != other.hashes[at])

    def __lt__(self, other: "Leaf") -> bool:
        if self.rank != other.rank:
            return self.rank < other.rank
        at = self.num_shared(other)
        ours, theirs = self.hashes[at : at + 1], other.hashes[at : at + 1]
        return (ours, *_age(self.place)) < (theirs, *_age(other.place))


@dataclass(slots=True)
class Leaves:
    """Leaves in order, looked for where the last one was found before anywhere else.

    Requests that vLLM takes and puts back are neighbours, and there may be thousands in a step.
    """

    in_order: list[Leaf] = field(default_factory=list)
    _found: int = 0

    def add(self, leaf: Leaf) -> None:
        """Add one at its place."""
        self.in_order.insert(self.index(leaf), leaf)

    def remove(self, leaf: Leaf) -> None:
        """Remove one that is there."""
        del self.in_order[self.index(leaf)]

    def index(self, leaf: Leaf) -> int:
        """Where a leaf is, or would be."""
        leaves = self.in_order
        low, high = max(self._found - 1, 0), min(self._found + 1, len(leaves))
        near = leaves[low : high + 1]
        if leaf in near:  # the very one: leaves are equal to themselves alone
            low = high = low + near.index(leaf)
        elif low and not leaves[low - 1] < leaf:
            low, high = 0, low - 1
        elif high < len(leaves) and leaves[high] < leaf:
            low, high = high + 1, len(leaves)
        self._found = bisect_left(leaves, leaf, low, high)
        return self._found


@dataclass(slots=True)
class Sides:
    """Who is next to the one served last, on both sides. Each leaf is passed over once a prefix.

    Attributes:
        leaves: all.
        taken: the places of those that are passed over.
    """

    leaves: Leaves
    taken: set[Place]
    _last: Leaf | None = None
    _before: int = 0
    _after: int = 0

    def nearest(self, last: Leaf | None, rank: Rank) -> Leaf | None:
        """Who of a rank shares most with the one served last; None if nobody shares anything."""
        if last is None or not last.hashes:
            return None
        sought = last if last.rank == rank else replace(last, rank=rank)
        if self._last is None or not self._is_near(sought):
            self._after = self.leaves.index(sought)
            self._before = self._after - 1
        self._last = sought
        while self._is_taken(self._before, sought):
            self._before -= 1
        while self._is_taken(self._after, sought):
            self._after += 1
        leaves = self.leaves.in_order
        near = [leaves[at] for at in (self._before, self._after) if self._shares(at, sought)]
        return max(near, key=sought.num_shared) if near[1:] else next(iter(near), None)

    def _is_near(self, sought: Leaf) -> bool:
        """Whether all between both sides are taken, and the one sought is among them."""
        assert self._last is not None
        leaves, sides = self.leaves.in_order, (self._before, self._after)
        return sought is self._last or any(
            0 <= at < len(leaves) and leaves[at] is sought for at in sides
        )

    def _is_taken(self, at: int, sought: Leaf) -> bool:
        return self._shares(at, sought) and self.leaves.in_order[at].place in self.taken

    def _shares(self, at: int, sought: Leaf) -> bool:
        if not 0 <= at < len(self.leaves.in_order):
            return False
        leaf = self.leaves.in_order[at]
        return leaf.rank == sought.rank and leaf.hashes[:1] == sought.hashes[:1]


def _age(place: Place) -> tuple[float, int]:
    return place.arrival_s, place.number
