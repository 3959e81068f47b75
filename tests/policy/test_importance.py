"""What importance decides among requests that wait."""

import pytest

from vllm_sarathi.policy.order import Place, WaitingOrder

NOW_S = 100.0


class Name(str):
    """What a request is known by; can be referred to weakly."""


def place(name: str, arrival_s: float, importance: int = 0) -> Place:
    """A request whose first token is due two seconds after its arrival."""
    return Place(Name(name), arrival_s, arrival_s + 2.0, num_tokens=100, importance=importance)


@pytest.mark.parametrize("importance", [-100, 0])
def test_whose_wait_has_ended_goes_before_all_but_the_important(importance: int) -> None:
    order = WaitingOrder()
    late = place("late", NOW_S - 50, importance)
    late.is_aside = True
    order.age(late.request)
    others = [place("important", NOW_S, 10), place("default", NOW_S)]
    ranked = sorted([*others, late], key=order.rank)
    assert [one.request for one in ranked] == ["important", "late", "default"]
