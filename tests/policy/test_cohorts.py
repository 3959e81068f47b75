"""Decodes split into cohorts, one for each micro-batch of a pipeline."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.policy.micro_batch import Cohorts, decode_share
from vllm_sarathi.policy.state import Decodes


def decodes(names: Sequence[Any]) -> Decodes:
    return Decodes(names, [1] * len(names), [20] * len(names))


def chosen(cohorts: Cohorts, ready: str, num_decodes: int) -> str:
    """``"ab|c"``: the cohort of the next micro-batch, and those postponed."""
    cohort, postponed = cohorts.choose(decodes(ready), num_decodes)
    return "".join(cohort.requests) + "|" + "".join(postponed)


def test_a_cohort_is_an_even_share_of_all_decodes() -> None:
    assert chosen(Cohorts(2), "abcdef", 6) == "abc|def"
    assert chosen(Cohorts(4), "abcdef", 6) == "ab|cdef"


def test_decodes_in_flight_count_in_the_share() -> None:
    assert chosen(Cohorts(2), "abc", 6) == "abc|"


def test_those_postponed_come_first_in_the_next_micro_batch() -> None:
    cohorts = Cohorts(2)
    assert chosen(cohorts, "abcd", 4) == "ab|cd"
    assert chosen(cohorts, "abcd", 4) == "cd|ab"


def test_new_decodes_stand_behind_those_postponed() -> None:
    cohorts = Cohorts(3)
    assert chosen(cohorts, "abc", 3) == "a|bc"
    assert chosen(cohorts, "xybc", 6) == "bc|xy"


def test_a_decode_that_has_ended_leaves_no_gap() -> None:
    cohorts = Cohorts(3)
    chosen(cohorts, "abcd", 4)
    assert chosen(cohorts, "abd", 3) == "d|ab"


def test_a_batch_of_all_decodes_postpones_nobody() -> None:
    cohorts = Cohorts(2)
    chosen(cohorts, "abcd", 4)
    cohorts.skip()
    assert chosen(cohorts, "abcd", 4) == "ab|cd"


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 8))
def test_nobody_is_lost_and_nobody_is_taken_twice(ready: int, flying: int, stages: int) -> None:
    seen = decodes("".join(chr(ord("A") + i) for i in range(ready)))
    cohort, postponed = Cohorts(stages).choose(seen, ready + flying)
    assert sorted([*cohort.requests, *postponed]) == list(seen.requests)
    assert len(cohort.requests) == decode_share(ready, ready + flying, stages)


@given(
    num_decodes=st.integers(1, 12),
    num_stages=st.integers(1, 5),
    delays=st.lists(st.integers(1, 6), min_size=30, max_size=30),
)
def test_everybody_is_served_within_as_many_micro_batches_as_there_are_stages(
    num_decodes: int, num_stages: int, delays: list[int]
) -> None:
    """Cohorts come back after any number of micro-batches, in their order."""
    cohorts = Cohorts(num_stages)
    waits = dict.fromkeys(range(num_decodes), 0)
    flying: deque[tuple[int, list[int]]] = deque()
    for now, delay in enumerate(delays):
        while flying and flying[0][0] <= now:
            waits |= dict.fromkeys(flying.popleft()[1], 0)
        cohort, _ = cohorts.choose(decodes(list(waits)), num_decodes)
        flying.append((now + delay, list(cohort.requests)))
        for request in cohort.requests:
            del waits[request]
        waits = {name: waited + 1 for name, waited in waits.items()}
        assert max(waits.values(), default=0) < num_stages
