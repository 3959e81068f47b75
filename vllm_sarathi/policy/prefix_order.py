"""Requests that share a prefix, one after the other.

Next is the request that shares most with the one served before. That is a depth-first walk
over the tree of prefixes (BatchLLM, arXiv 2412.03594): it leaves a prefix, be it short or long,
when nobody waits that has it, so that the prefix's KV blocks are in use or were of late. Where
nobody shares anything, the walk goes on with the request that came first.

Unlike the paper, no tree is built and no prefixes are chosen beforehand, for requests come and
go: in the order of their block hashes, those that share a prefix are neighbours. And those with
most to decode for their prefill do not go first, for decodes and prefill would then run apart,
rather than in the same batches. With them first, SPREAD's loads (policy/throughput_budget.py) in
batches of at most 512 tokens had 729 output tokens/s rather than 746 in the smaller cache, 863
rather than 852 in the larger one, and the same with shared prefixes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Any, NamedTuple

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Entry, Place, PlaceHeap
from vllm_sarathi.policy.prefix_leaf import Leaf, Leaves, Sides
from vllm_sarathi.policy.state import Rank

PATIENCE = 200
"""One admission in so many goes to the request that came first, wherever the walk is. That one
may have to compute its prefix for itself alone. The walk then goes on where it was."""


class Course(NamedTuple):
    """How far the walk has come.

    Attributes:
        last: who was served last, but for turns of the request that came first.
        num_since_oldest: requests served since the one that came first was.
    """

    last: Leaf | None = None
    num_since_oldest: int = 0

    @property
    def is_turn_of_oldest(self) -> bool:
        """Whether next is the request that came first."""
        return self.num_since_oldest >= PATIENCE

    def after(self, leaf: Leaf, is_oldest: bool) -> "Course":
        """Once one more is served."""
        last = self.last if self.is_turn_of_oldest else leaf
        return Course(last, 0 if is_oldest else self.num_since_oldest + 1)


@dataclass(slots=True)
class PrefixWalk:
    """Requests in the order of the walk. A change compares O(log n) of them.

    A request is served after the k of its priority and importance that came before it and at
    most (k + 1) x ``PATIENCE`` others. Those that vLLM could not admit are passed over.
    """

    _leaves: Leaves = field(default_factory=Leaves)
    _leaf_of: dict[Place, Leaf] = field(default_factory=dict)
    _by_rank: PlaceHeap = field(default_factory=lambda: PlaceHeap(is_aside=True))
    _by_age: PlaceHeap = field(default_factory=lambda: PlaceHeap(is_aside=True))
    # Those that were put back, last among the oldest until another one has had its turn.
    _blocked_by_age: PlaceHeap = field(default_factory=lambda: PlaceHeap(is_aside=True))
    _blocked: set[Any] = field(default_factory=set)
    _began: Course = field(default_factory=Course)
    _course: Course | None = field(default_factory=Course)
    _served: dict[Any, tuple[Leaf, bool]] = field(default_factory=dict)
    _first: Entry | None = None

    def push(self, key: Rank, place: Place) -> None:
        """Add a request of a rank."""
        leaf = self._leaf_of[place] = Leaf(key, place, tuple(place.block_hashes))
        self._first = None
        self._leaves.add(leaf)
        self._by_rank.push((key, place.arrival_s), place)
        by_age = self._blocked_by_age if place.request in self._blocked else self._by_age
        by_age.push((key[:-1], place.arrival_s), place)

    def discard(self, place: Place) -> None:
        """Let a request go."""
        self._blocked.discard(place.request)
        self._first = None
        self._leaves.remove(self._leaf_of.pop(place))

    def begin_step(self) -> None:
        """Those served in the step before can no longer be put back."""
        self._began = self._course = self._now()
        if any(is_oldest for _, is_oldest in self._served.values()):
            self._first = None
            self._unblock()
        self._served.clear()

    def serve(self, place: Place) -> None:
        """Go on from a request, before it goes."""
        oldest = self._by_age.first() or self._blocked_by_age.first()
        is_oldest = oldest is not None and oldest[-1] is place
        served = self._served[place.request] = self._leaf_of[place], is_oldest
        self._course = self._now().after(*served)

    def put_back(self, request: Any) -> None:
        """Go on as if a request that is pushed again had not been served in this step."""
        if self._served.pop(request, None):
            self._course = None
            self._blocked.add(request)

    def first(self) -> Entry | None:
        """The entry of the request that is next."""
        if self._first is None:
            self._first = next(iter(self), None)
        return self._first

    def shrink(self, num_live: int) -> None:
        """Rebuild what keeps entries of requests that left; ``num_live`` did not."""
        self._by_rank.shrink(num_live)
        self._by_age.shrink(num_live)
        self._blocked_by_age.shrink(num_live)

    def __iter__(self) -> Iterator[Entry]:
        """Entries in order. The first few cost little, however many there are."""
        taken = set[Place]()
        course, sides = self._now(), Sides(self._leaves, taken)
        for heap in (self._by_rank, self._by_age, self._blocked_by_age):
            heap.first()  # drops those that left
        ranked = (entry[-1] for entry in self._by_rank)
        aged = (entry[-1] for entry in chain(self._by_age, self._blocked_by_age))
        oldest, lowest = next(aged, None), next(ranked, None)
        while oldest and lowest:
            leaf = self._leaf_of[oldest]
            if not course.is_turn_of_oldest:
                leaf = self._leaf_of[lowest]
                leaf = sides.nearest(course.last, leaf.rank) or leaf
            yield leaf.rank, leaf.place.number, 0, leaf.place
            course = course.after(leaf, leaf.place is oldest)
            taken.add(leaf.place)
            oldest, lowest = _untaken(oldest, aged, taken), _untaken(lowest, ranked, taken)

    def _now(self) -> Course:
        if self._course is None:
            self._course = self._began
            for served in self._served.values():
                self._course = self._course.after(*served)
        return self._course

    def _unblock(self) -> None:
        self._blocked.clear()
        for key, *_, place in self._blocked_by_age:
            self._by_age.push(key, place)
        self._blocked_by_age = PlaceHeap(is_aside=True)


def _untaken(place: Place, places: Iterator[Place], taken: Collection[Place]) -> Place | None:
    """The first that is not taken, of this one and those after it."""
    return next((one for one in chain([place], places) if one not in taken), None)


@dataclass(slots=True)
class PrefixOrder(WaitingOrder):
    """Those with a deadline go first, those without one by prefix.

    Who is late steps aside for those in time and goes before those without a deadline, as it
    came. Those that run go before those of their kind that wait.
    """

    _walk: PrefixWalk = field(default_factory=PrefixWalk)

    def __post_init__(self) -> None:
        self._aside = self._walk

    def expire(self, now_s: float) -> list[Any]:
        """Let those step aside that can no longer be in time, as each step begins."""
        self._walk.begin_step()
        return WaitingOrder.expire(self, now_s)

    def put_back(self, request: Any) -> None:
        """Let one that was taken wait again at its place: it was not admitted after all."""
        self._walk.put_back(request)
        WaitingOrder.put_back(self, request)

    def bypass(self, requests: Collection[Any], by: Any) -> None:
        """Serve requests last of their kind; the walk orders those aside."""
        if not self.is_aside(by):
            WaitingOrder.bypass(self, requests, by)

    def remove(self, request: Any) -> None:
        """Let a request go."""
        place = self._places.get(request)
        if place is not None and place.is_aside:
            self._walk.discard(place)
        WaitingOrder.remove(self, request)

    def _aside_s(self, place: Place) -> float:
        """Those without a deadline are equal: the walk orders them."""
        return inf if place.due_s == inf else place.arrival_s

    def _take(self, place: Place) -> None:
        if place.is_aside:
            self._walk.serve(place)
        WaitingOrder._take(self, place)
