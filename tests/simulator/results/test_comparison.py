import signal
import subprocess
import sys

import numpy as np
import pytest

from vllm_sarathi.simulator.results.comparison import interval, paired_ratio, run_all


def test_no_tasks_give_no_results() -> None:
    assert list(run_all(abs, [], num_jobs=2)) == []


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
