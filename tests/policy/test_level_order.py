"""Prompts in levels by their prefill time."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_order import Name, served
from vllm_sarathi.policy.level_order import LevelOrder
from vllm_sarathi.policy.place import Place

TOKEN_S = 1 / 1024
WEIGHT = 100.0


def order(*sizes: int, arrivals_s: tuple[float, ...] = ()) -> LevelOrder:
    made = LevelOrder(WEIGHT, token_s=TOKEN_S)
    for i, size in enumerate(sizes):
        arrival_s = arrivals_s[i] if arrivals_s else i * 1e-3
        made.add(Place(Name(f"{size}@{i}"), arrival_s, inf, size), 0.0)
    return made


def test_a_prompt_joins_at_the_level_of_its_prefill_and_waits_for_those_above() -> None:
    assert served(order(3000, 100, 900)) == ["100@1", "900@2", "3000@0"]


def test_within_a_level_prompts_are_served_as_they_came() -> None:
    assert served(order(1000, 600, 800)) == ["1000@0", "600@1", "800@2"]


def test_who_has_waited_long_enough_for_its_level_goes_before_all_that_come() -> None:
    bound_s = WEIGHT * 4096 * TOKEN_S
    assert served(order(4000, 1, arrivals_s=(0.0, bound_s - 1.0)))[0] == "1@1"
    assert served(order(4000, 1, arrivals_s=(0.0, bound_s + 1.0)))[0] == "4000@0"


def test_a_running_prompt_rises_as_its_prefill_gets_shorter() -> None:
    waiting = order()
    begun, over = (Place(Name("r"), 0.0, inf, size, is_aside=True) for size in (4000, 400))
    assert waiting.rank(over) < waiting.rank(begun)


@given(st.lists(st.integers(1, 100_000), max_size=30))
def test_all_at_once_are_served_level_by_level(sizes: list[int]) -> None:
    waiting = order(*sizes, arrivals_s=(0.0,) * len(sizes))
    found = [int(name.split("@")[0]) for name in served(waiting)]
    levels = [(size - 1).bit_length() for size in found]
    assert levels == sorted(levels)
