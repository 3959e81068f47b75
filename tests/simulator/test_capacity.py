from collections.abc import Callable
from typing import Any

import pytest

from vllm_sarathi.simulator import (
    CapacityGoal,
    Deployment,
    EngineSettings,
    Fixed,
    Objectives,
    Replay,
    Synthetic,
    find_capacity,
    simulate,
)
from vllm_sarathi.simulator.results.recorder import StopRule
from vllm_sarathi.simulator.steady import STEADY

STOCK = EngineSettings("stock", max_num_batched_tokens=512)


def test_capacity_is_the_highest_rate_that_holds(machine: Callable[..., Deployment]) -> None:
    traffic = Synthetic(Fixed(128, 2), 500)
    goal = CapacityGoal(tbt_s=0.045, scheduling_delay_s=0.5)
    found = find_capacity(STOCK, machine(), traffic, goal)
    assert found.report is not None
    assert goal.met(simulate(STOCK, machine(), traffic.at(found.rate, 0)))
    assert not goal.met(simulate(STOCK, machine(), traffic.at(1.03 * found.rate, 0)))


def test_an_impossible_goal_has_no_capacity(machine: Callable[..., Deployment]) -> None:
    traffic = Synthetic(Fixed(128, 5), 20)
    found = find_capacity(STOCK, machine(), traffic, CapacityGoal(tbt_s=0.001))
    assert found.rate == 0
    assert found.report is None


def test_goodput_can_be_the_goal(machine: Callable[..., Deployment]) -> None:
    traffic = Synthetic(Fixed(128, 5), 200)
    goals = [
        CapacityGoal(goodput=share, objectives=Objectives(ttft_s=0.1)) for share in (0.5, 0.99)
    ]
    loose, strict = (find_capacity(STOCK, machine(), traffic, goal).rate for goal in goals)
    assert 0 < strict < loose


def test_a_run_that_has_failed_stops_early(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(1000, 100), 300).at(50, 0)
    whole = simulate(STOCK, machine(), workload)
    stopped = simulate(STOCK, machine(), workload, stop_rule=StopRule(tbt_s=0.015))
    assert stopped.num_steps < whole.num_steps / 5
    goal = CapacityGoal(tbt_s=0.015)
    assert not goal.met(stopped)
    assert not goal.met(whole)


@pytest.mark.parametrize(
    "limit",
    [{"ttft_s": 0.1}, {"tpot_s": 0.0125}, {"tbt_s": 0.021}],
    ids=lambda limit: next(iter(limit)),
)
def test_every_objective_alone_lowers_capacity_and_is_named(
    machine: Callable[..., Deployment], limit: dict[str, Any]
) -> None:
    traffic = Synthetic(Fixed(100, 10), 200)
    goals = CapacityGoal(), CapacityGoal(**limit)
    loose, strict = (
        find_capacity(STOCK, machine(), traffic, goal, precision=0.1) for goal in goals
    )
    assert 0 < strict.rate < loose.rate
    (metric,) = limit
    check = strict.checks[0]
    assert check.figure == f"{metric.removesuffix('_s')}_p99_ms"
    assert check.value is not None
    assert check.value <= check.limit == limit[metric] * 1e3


def test_a_share_in_time_names_what_each_objective_came_to(
    machine: Callable[..., Deployment],
) -> None:
    goal = CapacityGoal(goodput=0.9, objectives=Objectives(ttft_s=0.1, tpot_s=0.05))
    found = find_capacity(STOCK, machine(), Synthetic(Fixed(128, 5), 200), goal, precision=0.1)
    values = {check.figure: check.value or 0.0 for check in found.checks}
    assert 0.9 <= values["goodput"] <= min(values["ttft_met_share"], values["tpot_met_share"])


def test_where_nothing_holds_the_checks_are_those_of_the_lowest_rate(
    machine: Callable[..., Deployment],
) -> None:
    goal = CapacityGoal(ttft_s=0.001, tbt_s=1.0)
    found = find_capacity(STOCK, machine(), Synthetic(Fixed(128, 5), 20), goal)
    assert found.rate == 0
    assert found.checked_rate < 1 / 32
    assert [check.figure for check in found.checks if not check.met] == ["ttft_p99_ms"]


def test_capacity_hardly_depends_on_the_number_of_requests_asked_for(
    machine: Callable[..., Deployment],
) -> None:
    goal = CapacityGoal(tbt_s=0.045)
    found = [
        find_capacity(STOCK, machine(), Synthetic(Fixed(300, 30), num), goal, precision=0.05)
        for num in (20, 2000)
    ]
    assert found[0].rate == pytest.approx(found[1].rate, rel=STEADY + 0.05)
    report = found[0].report
    assert report is not None
    assert len(report.workload) > 20
    assert report.warm_up_share is not None
    assert report.warm_up_share <= STEADY


def test_a_load_may_be_taken_as_it_is(machine: Callable[..., Deployment]) -> None:
    traffic, goal = Synthetic(Fixed(300, 100), 20), CapacityGoal(tbt_s=0.045)
    found = find_capacity(STOCK, machine(), traffic, goal, steady=False)
    assert found.report is not None
    assert len(found.report.workload) == 20


def test_a_trace_that_is_far_too_short_for_a_capacity_is_refused(
    machine: Callable[..., Deployment],
) -> None:
    trace = Replay(Synthetic(Fixed(300, 100), 20).at(1, 0))
    with pytest.raises(ValueError, match=r"fixed-300-100 holds 20 requests, too few"):
        find_capacity(STOCK, machine(), trace, CapacityGoal(tbt_s=0.045))


def test_a_search_tells_how_far_it_is(machine: Callable[..., Deployment]) -> None:
    told: list[Any] = []
    traffic, goal = Synthetic(Fixed(100, 100), 100), CapacityGoal(tbt_s=0.011)
    found = find_capacity(STOCK, machine(), traffic, goal, precision=0.5, on_progress=told.append)
    assert {progress.num_runs for progress in told} == set(range(found.num_runs))
    assert any(0 < progress.share < 1 for progress in told)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tbt_s": -1}, "tbt_s=-1 must be above 0"),
        ({"ttft_s": 0}, "ttft_s=0 must be above 0"),
        ({"scheduling_delay_s": None}, "scheduling_delay_s=None"),
        ({"goodput": 1.5}, "goodput=1.5 must be a share"),
        ({"objectives": Objectives(ttft_s=1)}, "no effect without goodput"),
    ],
)
def test_impossible_goals_are_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CapacityGoal(**arguments)


def test_a_word_is_no_engine(machine: Callable[..., Deployment]) -> None:
    engine: Any = "stock:512"
    with pytest.raises(ValueError, match="engine='stock:512' must be of the class EngineSettings"):
        find_capacity(engine, machine(), Synthetic(Fixed(1, 1), 1), CapacityGoal())
