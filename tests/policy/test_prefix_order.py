"""Requests that share a prefix, served together; against a search of all that wait."""

from itertools import groupby
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_order import Name
from vllm_sarathi.policy import prefix_order
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.prefix_order import PATIENCE, PrefixOrder

PREFIXES = st.lists(st.integers(0, 2), max_size=4).map(tuple)


def hashes(prefix: tuple[int, ...]) -> list[bytes]:
    """A hash for each block, that stands for all before it, as vLLM's do."""
    return [repr(prefix[: end + 1]).encode() for end in range(len(prefix))]


def place(name: str, *prefix: int, due_s: float = inf, **fields: Any) -> Place:
    return Place(Name(name), 0.0, due_s, 10, block_hashes=hashes(prefix), **fields)


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


@given(
    st.lists(st.one_of(PREFIXES, st.just("pop"), st.just("leave")), max_size=60), st.integers(1, 5)
)
def test_next_is_who_shares_most_with_the_last_or_came_first_whatever_comes_and_goes(
    acts: list[Any], patience: int
) -> None:
    waiting, prefixes, alive = order(), dict[str, tuple[int, ...]](), list[str]()
    last: tuple[int, ...] = ()
    num_since_oldest = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefix_order, "PATIENCE", patience)
        for i, act in enumerate([*acts, *["pop"] * 60]):
            if isinstance(act, tuple):
                prefixes[str(i)] = act
                alive.append(str(i))
                waiting.add(place(str(i), *act), 0.0)
            elif alive and act == "leave":
                waiting.remove(alive.pop(i % len(alive)))
            elif alive:
                listed = [one.request for one in waiting]
                assert sorted(listed) == sorted(alive)
                found = str(waiting.pop().request)
                assert found == listed[0]
                shared = {name: num_shared(prefixes[name], last) for name in alive}
                if num_since_oldest >= patience or not any(shared.values()):
                    assert found == alive[0]
                assert num_since_oldest >= patience or shared[found] == max(shared.values())
                if num_since_oldest < patience:
                    last = prefixes[found]
                num_since_oldest = 0 if found == alive[0] else num_since_oldest + 1
                alive.remove(found)
    assert not alive


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
