import signal
import subprocess
import sys

import numpy as np
import pytest

from vllm_sarathi.simulator import (
    CapacityGoal,
    EngineSettings,
    Fixed,
    Objectives,
    Synthetic,
    find_capacity,
    simulate,
)
from vllm_sarathi.simulator.results.comparison import interval, paired_ratio, run_all
from vllm_sarathi.simulator.results.recorder import StopRule

STOCK = EngineSettings("stock", max_num_batched_tokens=512)


def test_capacity_is_the_highest_rate_that_holds(machine):
    traffic = Synthetic(Fixed(128, 2), 500)
    goal = CapacityGoal(tbt_s=0.045, scheduling_delay_s=0.5)
    found = find_capacity(STOCK, machine(), traffic, goal)
    assert found.report is not None
    assert goal.met(simulate(STOCK, machine(), traffic.at(found.rate, 0)))
    assert not goal.met(simulate(STOCK, machine(), traffic.at(1.03 * found.rate, 0)))


def test_an_impossible_goal_has_no_capacity(machine):
    traffic = Synthetic(Fixed(128, 5), 20)
    found = find_capacity(STOCK, machine(), traffic, CapacityGoal(tbt_s=0.001))
    assert found.rate == 0
    assert found.report is None


def test_goodput_can_be_the_goal(machine):
    traffic = Synthetic(Fixed(128, 5), 200)
    goals = [
        CapacityGoal(goodput=share, objectives=Objectives(ttft_s=0.1)) for share in (0.5, 0.99)
    ]
    loose, strict = (find_capacity(STOCK, machine(), traffic, goal).rate for goal in goals)
    assert 0 < strict < loose


def test_a_run_that_has_failed_stops_early(machine):
    workload = Synthetic(Fixed(1000, 100), 300).at(50, 0)
    whole = simulate(STOCK, machine(), workload)
    stopped = simulate(STOCK, machine(), workload, stop_rule=StopRule(tbt_s=0.015))
    assert stopped.num_steps < whole.num_steps / 5
    goal = CapacityGoal(tbt_s=0.015)
    assert not goal.met(stopped)
    assert not goal.met(whole)


def test_no_tasks_give_no_results():
    assert list(run_all(abs, [], num_jobs=2)) == []


def test_an_interrupt_ends_tasks_that_run():
    program = (
        "import signal, time; from vllm_sarathi.simulator.results.comparison import run_all\n"
        # A shell's background jobs begin with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if __name__ == '__main__':\n"
        "    for _ in run_all(time.sleep, [0, 300, 300], 2): print('one is done', flush=True)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == -signal.SIGINT
        finally:
            process.kill()


def test_intervals_cover_the_mean():
    random = np.random.default_rng(0)
    covered = [
        abs(found.mean) <= found.half_width
        for found in (interval(random.normal(size=5)) for _ in range(400))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_ratios_pair_runs_of_the_same_seed():
    found = paired_ratio([2.0, 4.0, None], [1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.num) == (pytest.approx(2.0), 2)
    assert found.half_width == pytest.approx(0.0)
    assert paired_ratio([None], [1.0]) is None
