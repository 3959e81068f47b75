"""One run, from a workload to a report."""

import gc
import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Fixed,
    Lengths,
    Synthetic,
    Workload,
    simulate,
)
from vllm_sarathi.simulator import run as run_module

SCHEDULERS = ["stock", "sarathi"]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_seed_decides_everything(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload], scheduler: str
) -> None:
    runs = [
        simulate(EngineSettings(scheduler), machine(), mixed(), noise=0.02, seed=seed)
        for seed in (1, 1, 2)
    ]
    times = [run.per_request.e2e_s.tolist() for run in runs]
    assert times[0] == times[1]
    assert times[0] != times[2]


def test_shared_prefixes_are_computed_once(machine: Callable[..., Deployment]) -> None:
    lengths = Lengths(np.full(10, 1000), np.full(10, 2), np.full(10, 960), np.zeros(10, np.int64))
    workload = Workload("w", np.arange(10, dtype=np.float64), lengths)
    report = simulate(EngineSettings(), machine(), workload)
    assert report.num_tokens == 10_000 + 10 - 9 * 960


def test_a_full_cache_preempts(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(100, 400), 10, at_once=True).at(1, 0)
    report = simulate(EngineSettings(), machine(num_kv_tokens=2000, max_model_len=1000), workload)
    assert report.num_preemptions > 0
    assert report.completed


def test_blocks_behind_a_window_are_free_for_others(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(100, 400), 10, at_once=True).at(1, 0)
    room = {"num_kv_tokens": 2000, "max_model_len": 1000}
    kept, freed, halves = (
        simulate(EngineSettings(), machine(**room, kv_windows=windows), workload)
        for windows in ((None,), (64,), (64, None))
    )
    assert freed.num_preemptions == 0
    assert kept.num_preemptions > halves.num_preemptions
    assert kept.completed
    assert halves.completed


def test_overload_ends_at_the_time_limit(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(1000, 100), 500).at(100, 0)
    report = simulate(EngineSettings(), machine(), workload, limit_s=10)
    assert not report.completed
    assert report.duration_s < 11
    assert report.num_finished < 500


def test_a_request_that_fills_the_kv_cache_is_served_and_a_larger_one_refused(
    machine: Callable[..., Deployment],
) -> None:
    small = machine(num_kv_tokens=320)
    assert simulate(EngineSettings(), small, Synthetic(Fixed(285, 20), 1).at(1, 0)).completed
    with pytest.raises(ValueError, match="num_kv_tokens=320"):
        simulate(EngineSettings(), small, Synthetic(Fixed(286, 20), 1).at(1, 0))


def test_nothing_is_left_behind_after_an_exception(machine: Callable[..., Deployment]) -> None:
    before = (time.time, time.monotonic, time.time_ns, time.monotonic_ns)
    environment, collecting = dict(os.environ), gc.isenabled()
    engine = EngineSettings("tests.support.broken_schedulers.Raiser", async_scheduling=False)
    with pytest.raises(RuntimeError, match="no"):
        simulate(engine, machine(), Synthetic(Fixed(10, 10), 3).at(1, 0))
    assert (time.time, time.monotonic, time.time_ns, time.monotonic_ns) == before
    assert dict(os.environ) == environment
    assert gc.isenabled() == collecting
    assert gc.get_freeze_count() == 0


def test_what_the_caller_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        num_frozen = gc.get_freeze_count()
        with run_module.without_garbage_collection():
            pass
        assert gc.get_freeze_count() == num_frozen
    finally:
        gc.unfreeze()


def test_ten_thousand_waiting_requests_keep_their_ids(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(1, 1), 10_000, at_once=True).at(1, 0)
    report = simulate(EngineSettings(), machine(), workload)
    assert report.num_finished == 10_000
