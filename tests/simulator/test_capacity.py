from collections.abc import Callable

from vllm_sarathi.simulator import (
    CapacityGoal,
    Deployment,
    EngineSettings,
    Fixed,
    Objectives,
    Synthetic,
    find_capacity,
    simulate,
)
from vllm_sarathi.simulator.results.recorder import StopRule

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
