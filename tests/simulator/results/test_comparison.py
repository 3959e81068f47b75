import signal
import subprocess
import sys

import numpy as np
import pytest

from vllm_sarathi.simulator.results.comparison import (
    Tell,
    interval,
    paired_ratio,
    run_all,
    run_watched,
)


def test_no_tasks_give_no_results() -> None:
    assert list(run_all(abs, [], num_jobs=2)) == []


def tell_and_double(task: int, tell: Tell) -> int:
    tell(f"at {task}")
    return 2 * task


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_what_tasks_tell_is_heard_here(num_jobs: int) -> None:
    told: list[tuple[int, str]] = []
    tasks = [3, 5]
    found = run_watched(tell_and_double, tasks, num_jobs, lambda *heard: told.append(heard))
    assert dict(found) == {0: 6, 1: 10}
    assert sorted(told) == [(0, "at 3"), (1, "at 5")]


def test_an_interrupt_ends_tasks_that_run() -> None:
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


def test_intervals_cover_the_mean() -> None:
    random = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        found = interval(random.normal(size=5).tolist())
        assert found is not None
        assert found.half_width is not None
        covered.append(abs(found.mean) <= found.half_width)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_ratios_pair_runs_of_the_same_seed() -> None:
    found = paired_ratio([2.0, 4.0, None], [1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == pytest.approx(2.0)
    assert found.num == 2
    assert found.half_width == pytest.approx(0.0)
    assert paired_ratio([None], [1.0]) is None
