"""Requests that share a prefix, served together; against a search of all that wait."""

from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_order import Name
from vllm_sarathi.policy import prefix_order
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.prefix_leaf import Leaf
from vllm_sarathi.policy.prefix_order import PATIENCE, PrefixOrder

PREFIXES = st.lists(st.integers(0, 2), max_size=4).map(tuple)


def hashes(prefix: tuple[int, ...]) -> list[bytes]:
    """A hash for each block, that stands for all before it, as vLLM's do."""
    return [repr(prefix[: end + 1]).encode() for end in range(len(prefix))]


def place(
    name: str, *prefix: int, due_s: float = inf, arrival_s: float = 0.0, **fields: Any
) -> Place:
    return Place(Name(name), arrival_s, due_s, 10, block_hashes=hashes(prefix), **fields)


def order(*places: Place) -> PrefixOrder:
    made = PrefixOrder()
    for one in places:
        made.add(one, 0.0)
    return made


def served(waiting: PrefixOrder) -> list[str]:
    return [waiting.pop().request for _ in range(len(waiting))]


def num_shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(one[: end + 1] == other[: end + 1] for end in range(min(len(one), len(other))))


@given(st.lists(PREFIXES, max_size=30))
def test_whoever_shares_a_prefix_of_any_length_is_served_together(
    prefixes: list[tuple[int, ...]],
) -> None:
    waiting = order(*(place(str(i), *prefix) for i, prefix in enumerate(prefixes)))
    found = [prefixes[int(name)] for name in served(waiting)]
    for length in range(1, 5):
        runs = [key for key, _ in groupby(p[:length] if len(p) >= length else None for p in found)]
        shared = [run for run in runs if run is not None]
        assert len(shared) == len(set(shared))


@dataclass
class Served:
    """A request taken in this step, and what the search says of the walk."""

    name: str
    was_oldest: bool


@dataclass
class Search:
    """The order again, by looking at all that wait."""

    patience: int
    prefixes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    alive: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    before: list[Served] = field(default_factory=list)
    taken: list[Served] = field(default_factory=list)

    def course(self) -> tuple[tuple[int, ...], int]:
        """The prefix that is hot, and how many were served since the oldest."""
        last: tuple[int, ...] = ()
        num_since_oldest = 0
        for served in (*self.before, *self.taken):
            if num_since_oldest < self.patience:
                last = self.prefixes[served.name]
            num_since_oldest = 0 if served.was_oldest else num_since_oldest + 1
        return last, num_since_oldest

    def oldest(self) -> str:
        return min(self.alive, key=lambda name: (name in self.blocked, int(name)))

    def check(self, found: str) -> None:
        last, num_since_oldest = self.course()
        shared = {name: num_shared(self.prefixes[name], last) for name in self.alive}
        if num_since_oldest >= self.patience:
            assert found == self.oldest()
        elif any(shared.values()):
            assert shared[found] == max(shared.values())
        else:
            assert found == min(self.alive, key=int)

    def take(self, name: str) -> None:
        self.taken.append(Served(name, name == self.oldest()))
        self.leave(name)

    def leave(self, name: str) -> None:
        self.alive.remove(name)
        self.blocked.discard(name)

    def put_back(self, at: int) -> str:
        name = self.taken.pop(at % len(self.taken)).name
        self.alive.append(name)
        self.blocked.add(name)
        return name

    def step(self) -> None:
        if any(served.was_oldest for served in self.taken):
            self.blocked.clear()
        self.before += self.taken
        self.taken.clear()


ACTS = st.one_of(PREFIXES, st.sampled_from(["pop", "pop", "leave", "put back", "step"]))


@given(st.lists(ACTS, max_size=60), st.integers(1, 5))
def test_next_is_who_shares_most_with_the_last_or_came_first_whatever_comes_and_goes(
    acts: list[Any], patience: int
) -> None:
    waiting, search = order(), Search(patience)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefix_order, "PATIENCE", patience)
        for i, act in enumerate([*acts, *["pop"] * 60]):
            if isinstance(act, tuple):
                search.prefixes[str(i)] = act
                search.alive.append(str(i))
                waiting.add(place(str(i), *act), 0.0)
            elif act == "step":
                waiting.expire(0.0)
                search.step()
            elif act == "put back" and search.taken:
                waiting.put_back(search.put_back(i))
            elif search.alive and act == "leave":
                name = search.alive[i % len(search.alive)]
                waiting.remove(name)
                search.leave(name)
            elif search.alive and act == "pop":
                listed = [one.request for one in waiting]
                assert sorted(listed) == sorted(search.alive)
                found = str(waiting.pop().request)
                assert found == listed[0]
                search.check(found)
                search.take(found)
    assert not search.alive


@given(st.lists(PREFIXES, max_size=40), st.integers(1, 5))
def test_the_list_of_all_that_wait_is_the_order_in_which_they_are_served(
    prefixes: list[tuple[int, ...]], patience: int
) -> None:
    waiting = order(*(place(str(i), *prefix) for i, prefix in enumerate(prefixes)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefix_order, "PATIENCE", patience)
        listed = [one.request for one in waiting]
        assert listed == served(waiting)


def test_who_cannot_be_admitted_does_not_use_up_the_turns_of_those_behind() -> None:
    waiting = order(place("hot", 1), place("blocked", 2), place("cold", 3))
    found = [waiting.pop().request]
    for i in range(3 * PATIENCE):
        waiting.expire(0.0)
        waiting.add(place(f"hot{i}", 1), 0.0)
        found.append(waiting.pop().request)
        if found[-1] == "blocked":
            waiting.put_back(found.pop())
    assert found.index("cold") <= PATIENCE + 2


def test_who_was_preempted_goes_back_to_where_its_arrival_puts_it() -> None:
    names = [f"r{i}" for i in range(9)]
    places = [place(name, arrival_s=float(i)) for i, name in enumerate(names)]
    waiting = order(*places)
    assert waiting.pop().request == "r0"
    waiting.expire(0.0)
    waiting.add(place("r0", arrival_s=0.0), 0.0)
    assert served(waiting) == names


def test_who_is_late_goes_before_those_without_a_deadline_whatever_they_share() -> None:
    batch = (place(f"b{i}", 1, importance=-100) for i in range(9))
    waiting = order(*batch, place("late", 2, due_s=2.0), place("later", 1, due_s=3.0, arrival_s=1))
    assert waiting.pop().request == "late"
    waiting.put_back("late")
    waiting.expire(9.0)
    assert served(waiting)[:2] == ["late", "later"]


def test_those_who_are_late_without_end_do_not_keep_the_others_from_their_turns() -> None:
    waiting = order(place("batch", 1, arrival_s=0.0))
    for i in range(PATIENCE + 1):
        waiting.add(place(f"late{i}", 2, due_s=-1.0, arrival_s=1.0 + i), 0.0)
    assert served(waiting).index("batch") == PATIENCE


def test_requests_without_prefixes_are_served_as_they_came() -> None:
    names = [f"r{i}" for i in range(9)]
    assert served(order(*map(place, names))) == names


def test_who_comes_while_its_prefix_is_hot_goes_before_all_that_wait() -> None:
    waiting = order(place("a", 1), place("b", 2), place("c", 3))
    assert waiting.pop().request == "a"
    waiting.add(place("d", 1), 0.0)
    assert served(waiting) == ["d", "b", "c"]


def test_an_endless_prefix_lets_the_others_wait_for_a_bounded_time() -> None:
    waiting = order(place("hot", 1), *(place(f"other{i}", 2 + i) for i in range(3)))
    for i in range(1 + 3 * (PATIENCE + 1)):
        waiting.add(place(f"hot{i}", 1), 0.0)
        waiting.pop()
    assert [one.request for one in waiting if one.request.startswith("other")] == []


def test_the_turn_of_who_came_first_leaves_the_prefix_that_is_hot() -> None:
    waiting = order(place("a", 1), place("other", 2), *(place(f"b{i}", 1) for i in range(400)))
    found = served(waiting)
    assert found.index("other") == PATIENCE + 1
    assert found[PATIENCE + 2].startswith("b")


def test_those_in_time_go_before_those_without_a_deadline() -> None:
    waiting = order(place("a", 1), place("b", 1), place("chat", 2, due_s=9.0))
    assert served(waiting) == ["chat", "a", "b"]


def test_important_ones_and_vllms_priorities_go_first_whatever_they_share() -> None:
    waiting = order(place("a", 1), place("b", 1, importance=1), place("c", 1, priority=-1))
    waiting.add(place("d", 2, importance=1), 0.0)
    assert [one.request for one in waiting] == served(waiting) == ["c", "b", "d", "a"]


def test_who_runs_is_not_overtaken_by_who_waits() -> None:
    waiting = order(place("waits", 1))
    runs = place("runs", 2, is_aside=True)
    first = waiting.first()
    assert first is not None
    assert waiting.rank(runs) == waiting.rank(first)


def test_who_was_not_admitted_goes_back_to_its_prefix() -> None:
    waiting = order(place("a", 1), place("b", 1), place("c", 2))
    assert waiting.pop().request == "a"
    waiting.put_back("a")
    assert served(waiting) == ["a", "b", "c"]


@pytest.mark.parametrize("change", [list.clear, lambda hashes: hashes.append(b"zzz")])
def test_a_list_of_hashes_that_changes_while_its_request_waits_does_no_harm(change: Any) -> None:
    one = place("a", 1)
    waiting = order(one, place("b", 1, 1), place("c", 1, 2))
    change(one.block_hashes)
    waiting.remove("a")
    assert served(waiting) == ["b", "c"]


def test_requests_that_are_taken_and_put_back_in_turn_are_hardly_compared() -> None:
    waiting = order(*(place(str(i), 1, i) for i in range(1000)))
    num_compared = 0
    compare = Leaf.__lt__

    def counted(one: Leaf, other: Leaf) -> bool:
        nonlocal num_compared
        num_compared += 1
        return compare(one, other)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Leaf, "__lt__", counted)
        for name in reversed(served(waiting)):
            waiting.put_back(name)
    assert len(waiting) == 1000
    assert num_compared < 8 * 1000
