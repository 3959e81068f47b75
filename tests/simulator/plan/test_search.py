"""The search for the cheapest option: against all runs, and how many it needs."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_sarathi.simulator.plan.search import MOST_FACTOR, Option, Search

Oracle = Callable[[int, int], bool]


def run(search: Search, holds: Oracle, at_a_time: int = 1) -> list[tuple[int, int]]:
    """Answer every question, several on their way at a time; returns the questions."""
    asked: list[tuple[int, int]] = []
    on_their_way: list[tuple[int, int]] = []
    while True:
        while len(on_their_way) < at_a_time and (question := search.question()) is not None:
            on_their_way.append(question)
            asked.append(question)
        if not on_their_way:
            return asked
        index, num = on_their_way.pop(0)
        search.answer(index, num, holds(index, num))


OPTION = st.tuples(
    st.sampled_from(["a", "b"]),
    st.floats(0.5, 40),
    st.integers(1, 6),  # fewest replicas by arithmetic
    st.integers(0, 30),  # and how many more it takes
)


@settings(deadline=None, max_examples=300)
@given(st.lists(OPTION, min_size=1, max_size=8), st.integers(1, 3))
def test_the_cheapest_of_each_family_is_found(
    options: list[tuple[str, float, int, int]], at_a_time: int
) -> None:
    search = Search([Option(family, usd, least) for family, usd, least, _ in options])
    needed = [least + more for _, _, least, more in options]
    asked = run(search, lambda index, num: num >= needed[index], at_a_time)
    for family in ("a", "b"):
        costs = [
            usd * needed[i]
            for i, (own, usd, least, _) in enumerate(options)
            if own == family and needed[i] <= MOST_FACTOR * least
        ]
        best = search.best(family)
        if not costs:
            # One that needs more replicas than any that is tried may still be found by its price.
            continue
        assert best is not None
        option = search.options[best]
        assert option.holds is not None
        assert option.holds * option.usd_per_hour <= min(costs) * (1 + 1e-9)
        assert option.holds == needed[best]
    assert all(search.is_decided(index) for index in range(len(options)))
    assert len(asked) == len(set(asked))


def test_an_option_that_cannot_be_cheaper_is_not_run() -> None:
    search = Search([Option("a", 1.0, 3), Option("a", 4.0, 1)])
    asked = run(search, lambda index, num: True)
    assert {index for index, _ in asked} == {0}
    assert search.is_decided(1)


def test_one_run_is_enough_for_an_option_that_does_not_hold_where_it_would_be_cheaper() -> None:
    search = Search([Option("a", 1.0, 4), Option("a", 1.5, 3)])
    asked = run(search, lambda index, num: index == 0 and num >= 8)
    assert [num for index, num in asked if index == 1] == [5]


def test_families_do_not_compete() -> None:
    search = Search([Option("ours", 1.0, 1), Option("stock", 9.0, 1)])
    run(search, lambda index, num: True)
    assert (search.best("ours"), search.best("stock")) == (0, 1)


def test_what_never_holds_is_given_up() -> None:
    search = Search([Option("a", 1.0, 2)])
    asked = run(search, lambda index, num: False)
    assert [num for _, num in asked] == [4, 8, 16, 32]
    assert search.best("a") is None
