"""The engine loop: against vLLM's own, and by what must hold of it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.v1.engine.core import EngineCore
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Fixed,
    Lengths,
    SchedulerDeadlockError,
    Speculation,
    Synthetic,
    Workload,
    simulate,
)
from vllm_sarathi.simulator.engine import shortcuts
from vllm_sarathi.simulator.engine.requests import RequestSource
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine

KINDS = [(False, 1), (True, 1), (False, 2), (True, 2), (True, 4)]
PLAIN = [(*kind, None) for kind in KINDS]
WITH_DRAFTS = [(*kind, Speculation(3, 0.0)) for kind in KINDS if kind != (False, 2)]  # refused
SCHEDULERS = ["stock", "sarathi"]


def record(scheduler: Any, events: list[Any]) -> None:
    """Note the order of calls on a scheduler, with what each batch holds."""
    schedule, update = scheduler.schedule, scheduler.update_from_output
    take_drafts = scheduler.update_draft_token_ids

    def noted_schedule(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        events.append(("schedule", dict(output.num_scheduled_tokens)))
        return output

    def noted_update(output: Any, answer: Any) -> Any:
        events.append(("update", list(output.num_scheduled_tokens)))
        return update(output, answer)

    def noted_drafts(drafts: Any) -> None:
        events.append(("drafts", drafts.req_ids, drafts.draft_token_ids))
        take_drafts(drafts)

    scheduler.schedule, scheduler.update_from_output = noted_schedule, noted_update
    scheduler.update_draft_token_ids = noted_drafts


class InstantExecutor:
    """Answers at once with a token for each request that is not prefilling; no draft is right."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def execute_model(self, output: Any, non_block: bool = False) -> "Future[Any]":
        names = list(output.num_scheduled_tokens)
        tokens = [[] if self.scheduler.requests[n].is_prefill_chunk else [0] for n in names]
        answer: Future[Any] = Future()
        answer.set_result(ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, tokens))
        self.answer = answer
        self.drafts = DraftTokenIds(names, [[0] * self.scheduler.num_spec_tokens for _ in names])
        return answer

    def sample_tokens(self, grammar: Any, non_block: bool = False) -> "Future[Any]":
        return self.answer

    def take_draft_token_ids(self) -> DraftTokenIds:
        return self.drafts


def vllm_loop(scheduler: Any, config: Any, source: RequestSource) -> None:
    """vLLM's ``EngineCore``, less what builds a model."""
    core = object.__new__(EngineCore)
    core.scheduler, core.vllm_config = scheduler, config
    core.model_executor = InstantExecutor(scheduler)
    core.log_stats, core.is_mm_encoder_only, core.is_pooling_model = False, False, False
    core.is_ec_consumer = False  # until 0.27
    core.check_for_draft_tokens = bool(scheduler.num_spec_tokens)
    core.async_scheduling = config.scheduler_config.async_scheduling
    core.aborts_queue = SimpleNamespace(empty=lambda: True)
    core._weight_version = "default"
    core.batch_queue_size = config.max_concurrent_batches
    core.batch_queue = deque() if core.batch_queue_size > 1 else None
    while source.next_arrival_s is not None:
        scheduler.add_request(source.take())
    step = core.step if core.batch_queue is None else core.step_with_batch_queue
    while scheduler.has_requests() or core.batch_queue:
        _, executed = step()
        core.post_step(executed)


@pytest.mark.parametrize(("asynchronous", "num_stages", "speculation"), [*PLAIN, *WITH_DRAFTS])
def test_the_loop_calls_the_scheduler_in_vllms_order(
    monkeypatch: pytest.MonkeyPatch,
    machine: Callable[..., Deployment],
    mixed: Callable[..., Workload],
    asynchronous: bool,
    num_stages: int,
    speculation: Speculation | None,
) -> None:
    engine = EngineSettings(
        async_scheduling=asynchronous, max_num_batched_tokens=256, speculation=speculation
    )
    workload = replace(mixed(12), arrival_s=np.zeros(12))
    expected: list[Any] = []
    seen: list[Any] = []
    with gpu_engine(engine, num_stages, 100_000, 8192) as (scheduler, config):
        record(scheduler, expected)
        vllm_loop(scheduler, config, RequestSource(workload, None))
    install = shortcuts.install

    def install_and_record(scheduler: Any) -> None:
        install(scheduler)
        record(scheduler, seen)

    monkeypatch.setattr(shortcuts, "install", install_and_record)
    simulate(engine, machine(num_stages), workload, stretches=False)
    assert seen == expected


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("asynchronous", "num_stages"), KINDS)
def test_every_request_is_served_in_full(
    machine: Callable[..., Deployment],
    mixed: Callable[..., Workload],
    scheduler: str,
    asynchronous: bool,
    num_stages: int,
) -> None:
    workload = mixed()
    engine = EngineSettings(scheduler, async_scheduling=asynchronous)
    report = simulate(engine, machine(num_stages), workload)
    assert report.completed
    assert report.num_finished == len(workload)
    assert report.num_output_tokens == workload.lengths.num_output.sum()


@pytest.mark.parametrize(("asynchronous", "in_flight"), [(False, 1), (True, 2)])
def test_asynchronous_scheduling_hides_the_cpu(
    machine: Callable[..., Deployment], asynchronous: bool, in_flight: int
) -> None:
    workload = Synthetic(Fixed(10, 101), 1, at_once=True).at(1, 0)
    report = simulate(EngineSettings(async_scheduling=asynchronous), machine(), workload)
    step_s = report.duration_s / report.num_steps
    assert step_s == pytest.approx(0.010 if asynchronous else 0.0103, abs=5e-5)


def test_arrivals_wait_for_the_step_that_runs(machine: Callable[..., Deployment]) -> None:
    lengths = Lengths(np.array([100, 100]), np.array([50, 1]))
    workload = Workload("w", np.array([0.0, 0.0501]), lengths)
    report = simulate(EngineSettings(async_scheduling=False), machine(), workload)
    # Steps begin every 10.3 ms: the sixth is the first to see the second request.
    assert report.per_request.scheduling_delay_s[1] == pytest.approx(5 * 0.0103 - 0.0501, abs=1e-4)


def test_stages_of_a_full_pipeline_overlap(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(10, 100), 8, at_once=True).at(1, 0)
    engine = EngineSettings(max_num_batched_tokens=20, async_scheduling=False)
    report = simulate(engine, machine(4), workload)
    assert report.idle_share is not None
    assert report.idle_share < 0.1
    assert len(report.stage_busy_s) == 4


def test_a_lone_request_leaves_all_stages_but_one_idle(machine: Callable[..., Deployment]) -> None:
    workload = Synthetic(Fixed(10, 100), 1, at_once=True).at(1, 0)
    report = simulate(EngineSettings(), machine(4), workload)
    assert report.idle_share == pytest.approx(0.75, abs=0.02)


def test_a_scheduler_that_does_nothing_is_found_out(machine: Callable[..., Deployment]) -> None:
    engine = EngineSettings("tests.support.broken_schedulers.Idler", async_scheduling=False)
    with pytest.raises(SchedulerDeadlockError, match=r"Idler scheduled nothing.*3 waiting"):
        simulate(engine, machine(), Synthetic(Fixed(10, 10), 3, at_once=True).at(1, 0))
