"""What importance decides among requests that wait."""

import pytest

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Place

NOW_S = 100.0


class Name(str):
    """What a request is known by; can be referred to weakly."""


def place(name: str, arrival_s: float, importance: int = 0) -> Place:
    """A request whose first token is due two seconds after its arrival."""
    return Place(Name(name), arrival_s, arrival_s + 2.0, num_tokens=100, importance=importance)


@pytest.mark.parametrize("importance", [-100, 0])
def test_one_that_is_owed_a_batch_goes_before_all_but_the_important(importance: int) -> None:
    order = WaitingOrder()
    late = place("late", NOW_S - 50, importance)
    late.is_aside = True
    others = [place("important", NOW_S, 10), place("default", NOW_S)]
    ranks = {order.owed_rank(late): "late"} | {order.rank(one): one.request for one in others}
    assert [ranks[rank] for rank in sorted(ranks)] == ["important", "late", "default"]
