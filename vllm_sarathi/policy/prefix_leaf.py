"""Requests in the order of their block hashes: who shares a prefix is a neighbour."""

from bisect import bisect_left
from dataclasses import dataclass, replace

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
class Sides:
    """Who is next to the one served last, on both sides. Each leaf is passed over once a prefix.

    Attributes:
        leaves: all, in order.
        taken: the places of those that are passed over.
    """

    leaves: list[Leaf]
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
            self._after = bisect_left(self.leaves, sought)
            self._before = self._after - 1
        self._last = sought
        while self._is_taken(self._before, sought):
            self._before -= 1
        while self._is_taken(self._after, sought):
            self._after += 1
        near = [self.leaves[at] for at in (self._before, self._after) if self._shares(at, sought)]
        return max(near, key=sought.num_shared, default=None)

    def _is_near(self, sought: Leaf) -> bool:
        """Whether all between both sides are taken, and the one sought is among them."""
        assert self._last is not None
        return sought is self._last or any(
            0 <= at < len(self.leaves) and self.leaves[at] is sought
            for at in (self._before, self._after)
        )

    def _is_taken(self, at: int, sought: Leaf) -> bool:
        return self._shares(at, sought) and self.leaves[at].place in self.taken

    def _shares(self, at: int, sought: Leaf) -> bool:
        if not 0 <= at < len(self.leaves):
            return False
        leaf = self.leaves[at]
        return leaf.rank == sought.rank and leaf.hashes[:1] == sought.hashes[:1]


def _age(place: Place) -> tuple[float, int]:
    return place.arrival_s, place.number
