"""What objectives promise."""

from math import inf

import pytest

from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.policy.deadlines import Promise


def promise(**fields: float) -> Promise:
    return Promise.of(RequestObjectives(**fields))  # type: ignore[arg-type]


def test_nothing_asked_is_nothing_promised() -> None:
    nothing = promise()
    assert (nothing.ttft_s, nothing.tpot_s, nothing.stall_s, nothing.e2e_s) == (inf,) * 4
    assert nothing.pace_s() == inf
    assert nothing.is_uniform
    assert nothing.first_due_s(5.0, 1.0) == inf


def test_a_gap_objective_alone_bounds_every_gap() -> None:
    strict = promise(tbt_s=0.05)
    assert (strict.stall_s, strict.tpot_s, strict.pace_s()) == (0.05, inf, 0.05)
    assert strict.is_uniform


def test_a_gap_objective_that_may_be_exceeded_is_a_mean_pace() -> None:
    mean = promise(tbt_s=0.05, max_stall_s=0.4)
    assert (mean.tpot_s, mean.stall_s, mean.pace_s()) == (0.05, 0.4, 0.05)
    assert not mean.is_uniform


def test_a_stall_as_long_as_the_gap_leaves_it_strict() -> None:
    strict = promise(tbt_s=0.05, max_stall_s=0.05)
    assert (strict.tpot_s, strict.stall_s) == (inf, 0.05)


def test_of_two_mean_paces_the_tighter_one_is_promised() -> None:
    both = promise(tpot_s=0.03, tbt_s=0.05, max_stall_s=0.4)
    assert (both.tpot_s, both.stall_s) == (0.03, 0.4)


def test_the_derived_gap_objective_is_no_number() -> None:
    auto = Promise.of(RequestObjectives(auto_tbt=True))
    assert auto.is_auto
    assert auto.pace_s() == inf


def test_importance_is_carried_along() -> None:
    assert Promise.of(RequestObjectives(importance=7)).importance == 7


def test_equal_objectives_share_one_promise() -> None:
    assert promise(ttft_s=1.0) is promise(ttft_s=1.0)


@pytest.mark.parametrize(
    ("asked", "due_s"),
    [
        ({"ttft_s": 2.0}, 102.0),
        ({"e2e_s": 60.0}, 160.0 - 8.0),
        ({"ttft_s": 2.0, "e2e_s": 60.0}, 102.0),
        ({"ttft_s": 58.0, "e2e_s": 60.0}, 152.0),
    ],
)
def test_the_last_tokens_deadline_leaves_the_decodes_their_time(
    asked: dict[str, float], due_s: float
) -> None:
    assert promise(**asked).first_due_s(100.0, decode_s=8.0) == due_s


def test_steps_that_bring_several_tokens_may_take_as_long_as_these_but_no_stall() -> None:
    pace = promise(tpot_s=0.1, max_stall_s=0.5)
    assert pace.pace_s(2.5) == pytest.approx(0.25)
    assert pace.pace_s(8.0) == 0.5
    assert promise(tbt_s=0.05).pace_s(2.5) == 0.05
