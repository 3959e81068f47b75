"""The engine loop: against vLLM's own, and by what must hold of it."""

import gc
import os
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.core import EngineCore
from vllm.v1.outputs import ModelRunnerOutput

from vllm_sarathi.simulator import (
    EngineSettings,
    Fixed,
    Lengths,
    SchedulerDeadlockError,
    Synthetic,
    Workload,
    simulate,
)
from vllm_sarathi.simulator import run as run_module
from vllm_sarathi.simulator.engine.requests import RequestSource
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine

KINDS = [(False, 1), (True, 1), (False, 2), (True, 2), (True, 4)]
SCHEDULERS = ["stock", "sarathi"]


class Idler(Scheduler):
    """Never schedules anything."""

    def schedule(self, *args, **kwargs):
        running, self.running = self.running, []
        waiting, self.waiting = self.waiting, deque()
        try:
            return super().schedule(*args, **kwargs)
        finally:
            self.running, self.waiting = running, waiting


class Raiser(Scheduler):
    def schedule(self, *args, **kwargs):
        raise RuntimeError("no")


def recorded(scheduler, events):
    """Note the order of calls on a scheduler, with what each batch holds."""
    schedule, update = scheduler.schedule, scheduler.update_from_output

    def noted_schedule(*args, **kwargs):
        output = schedule(*args, **kwargs)
        events.append(("schedule", dict(output.num_scheduled_tokens)))
        return output

    def noted_update(output, answer):
        events.append(("update", list(output.num_scheduled_tokens)))
        return update(output, answer)

    scheduler.schedule, scheduler.update_from_output = noted_schedule, noted_update


class InstantExecutor:
    """Answers at once with a token for each request that is not prefilling."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    def execute_model(self, output, non_block=False):
        names = list(output.num_scheduled_tokens)
        tokens = [[] if self.scheduler.requests[n].is_prefill_chunk else [0] for n in names]
        answer = Future()
        answer.set_result(ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, tokens))
        self.answer = answer
        return answer

    def sample_tokens(self, grammar, non_block=False):
        return self.answer


def vllm_loop(scheduler, config, source):
    """vLLM's ``EngineCore``, less what builds a model."""
    core = object.__new__(EngineCore)
    core.scheduler, core.vllm_config = scheduler, config
    core.model_executor = InstantExecutor(scheduler)
    core.log_stats, core.is_mm_encoder_only, core.is_pooling_model = False, False, False
    core.aborts_queue = SimpleNamespace(empty=lambda: True)
    core._weight_version = "default"
    core.batch_queue_size = config.max_concurrent_batches
    core.batch_queue = deque() if core.batch_queue_size > 1 else None
    while source.next_arrival_s is not None:
        scheduler.add_request(source.take())
    step = core.step if core.batch_queue is None else core.step_with_batch_queue
    while scheduler.has_requests() or core.batch_queue:
        step()


@pytest.mark.parametrize(("asynchronous", "num_stages"), KINDS)
def test_the_loop_calls_the_scheduler_in_vllms_order(
    monkeypatch, machine, mixed, asynchronous, num_stages
):
    engine = EngineSettings(async_scheduling=asynchronous, max_num_batched_tokens=256)
    workload = replace(mixed(12), arrival_s=np.zeros(12))
    expected, seen = [], []
    with gpu_engine(engine, num_stages, 100_000, 8192) as (scheduler, config):
        recorded(scheduler, expected)
        vllm_loop(scheduler, config, RequestSource(workload, None))
    install = run_module.shortcuts.install
    monkeypatch.setattr(run_module.shortcuts, "install", lambda s: (install(s), recorded(s, seen)))
    simulate(engine, machine(num_stages), workload, stretches=False)
    assert seen == expected


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("asynchronous", "num_stages"), KINDS)
def test_every_request_is_served_in_full(machine, mixed, scheduler, asynchronous, num_stages):
    workload = mixed()
    engine = EngineSettings(scheduler, async_scheduling=asynchronous)
    report = simulate(engine, machine(num_stages), workload)
    assert report.completed
    assert report.num_finished == len(workload)
    assert report.num_output_tokens == workload.lengths.num_output.sum()


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("num_kv_tokens", [4_000, 100_000])
def test_shortcuts_change_no_batch(
    monkeypatch, machine, mixed, batches, scheduler, asynchronous, caching, num_kv_tokens
):
    engine = EngineSettings(
        scheduler,
        async_scheduling=asynchronous,
        enable_prefix_caching=caching,
        max_num_batched_tokens=512,
    )
    options = {"deployment": machine(num_kv_tokens=num_kv_tokens, max_model_len=2048)}
    short = batches(engine, mixed(40, rate=50), **options)
    monkeypatch.setattr(run_module.shortcuts, "install", lambda scheduler: None)
    assert batches(engine, mixed(40, rate=50), **options) == short


@pytest.mark.parametrize(("asynchronous", "in_flight"), [(False, 1), (True, 2)])
def test_asynchronous_scheduling_hides_the_cpu(machine, asynchronous, in_flight):
    workload = Synthetic(Fixed(10, 101), 1, at_once=True).at(1, 0)
    report = simulate(EngineSettings(async_scheduling=asynchronous), machine(), workload)
    step_s = report.duration_s / report.num_steps
    assert step_s == pytest.approx(0.010 if asynchronous else 0.0103, abs=5e-5)


def test_arrivals_wait_for_the_step_that_runs(machine):
    lengths = Lengths(np.array([100, 100]), np.array([50, 1]))
    workload = Workload("w", np.array([0.0, 0.0501]), lengths)
    report = simulate(EngineSettings(async_scheduling=False), machine(), workload)
    # Steps begin every 10.3 ms: the sixth is the first to see the second request.
    assert report.per_request.scheduling_delay_s[1] == pytest.approx(5 * 0.0103 - 0.0501, abs=1e-4)


def test_stages_of_a_full_pipeline_overlap(machine):
    workload = Synthetic(Fixed(10, 100), 8, at_once=True).at(1, 0)
    engine = EngineSettings(max_num_batched_tokens=20, async_scheduling=False)
    report = simulate(engine, machine(4), workload)
    assert report.idle_share < 0.1
    assert len(report.stage_busy_s) == 4


def test_a_lone_request_leaves_all_stages_but_one_idle(machine):
    workload = Synthetic(Fixed(10, 100), 1, at_once=True).at(1, 0)
    report = simulate(EngineSettings(), machine(4), workload)
    assert report.idle_share == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_seed_decides_everything(machine, mixed, scheduler):
    runs = [
        simulate(EngineSettings(scheduler), machine(), mixed(), noise=0.02, seed=seed)
        for seed in (1, 1, 2)
    ]
    times = [run.per_request.e2e_s.tolist() for run in runs]
    assert times[0] == times[1]
    assert times[0] != times[2]


def test_shared_prefixes_are_computed_once(machine):
    lengths = Lengths(np.full(10, 1000), np.full(10, 2), np.full(10, 960), np.zeros(10, np.int64))
    workload = Workload("w", np.arange(10.0), lengths)
    report = simulate(EngineSettings(), machine(), workload)
    assert report.num_tokens == 10_000 + 10 - 9 * 960


def test_a_full_cache_preempts(machine):
    workload = Synthetic(Fixed(100, 400), 10, at_once=True).at(1, 0)
    report = simulate(EngineSettings(), machine(num_kv_tokens=2000, max_model_len=1000), workload)
    assert report.num_preemptions > 0
    assert report.completed


def test_overload_ends_at_the_time_limit(machine):
    workload = Synthetic(Fixed(1000, 100), 500).at(100, 0)
    report = simulate(EngineSettings(), machine(), workload, limit_s=10)
    assert not report.completed
    assert report.duration_s < 11
    assert report.num_finished < 500


def test_a_request_that_fills_the_kv_cache_is_served_and_a_larger_one_refused(machine):
    small = machine(num_kv_tokens=320)
    assert simulate(EngineSettings(), small, Synthetic(Fixed(285, 20), 1).at(1, 0)).completed
    with pytest.raises(ValueError, match="num_kv_tokens=320"):
        simulate(EngineSettings(), small, Synthetic(Fixed(286, 20), 1).at(1, 0))


def test_a_scheduler_that_does_nothing_is_found_out(machine):
    engine = EngineSettings(f"{__name__}.Idler", async_scheduling=False)
    with pytest.raises(SchedulerDeadlockError, match=r"Idler scheduled nothing.*3 waiting"):
        simulate(engine, machine(), Synthetic(Fixed(10, 10), 3, at_once=True).at(1, 0))


def test_nothing_is_left_behind_after_an_exception(machine):
    before = (time.time, time.monotonic, time.time_ns, time.monotonic_ns)
    environment, collecting = dict(os.environ), gc.isenabled()
    engine = EngineSettings(f"{__name__}.Raiser", async_scheduling=False)
    with pytest.raises(RuntimeError, match="no"):
        simulate(engine, machine(), Synthetic(Fixed(10, 10), 3).at(1, 0))
    assert (time.time, time.monotonic, time.time_ns, time.monotonic_ns) == before
    assert dict(os.environ) == environment
    assert gc.isenabled() == collecting
    assert gc.get_freeze_count() == 0


def test_what_the_caller_froze_stays_frozen():
    gc.freeze()
    try:
        num_frozen = gc.get_freeze_count()
        with run_module.without_garbage_collection():
            pass
        assert gc.get_freeze_count() == num_frozen
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    "name",
    [
        "nowhere.Class",
        "vllm.nothing",
        "plain",
        "json.dumps",
        "builtins.int",
        "collections.OrderedDict",
        "vllm.LLM",
        "vllm.v1.core.sched.interface.SchedulerInterface",
    ],
)
def test_schedulers_that_cannot_be_used_are_named(machine, name):
    with pytest.raises(ValueError, match=f"scheduler='{name}'"):
        simulate(EngineSettings(name), machine(), Synthetic(Fixed(1, 1), 1).at(1, 0))


def test_ten_thousand_waiting_requests_keep_their_ids(machine):
    workload = Synthetic(Fixed(1, 1), 10_000, at_once=True).at(1, 0)
    report = simulate(EngineSettings(), machine(), workload)
    assert report.num_finished == 10_000
