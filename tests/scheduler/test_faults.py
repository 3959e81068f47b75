"""An exception in our part of a step costs that step's plan, and nothing else."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.metrics.objectives import ObjectivesRecorder
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.token_budget import SloTokenBudget
from vllm_sarathi.scheduler import delegation, faults, mixin, snapshot
from vllm_sarathi.scheduler.faults import MOST_FAULTS, WITHIN_STEPS, Faults
from vllm_sarathi.scheduler.observer import StepObserver
from vllm_sarathi.scheduler.promises import Promises
from vllm_sarathi.scheduler.shedding import Shedding
from vllm_sarathi.scheduler.step_timer import StepTimer

PLACES = [
    (mixin, "take_snapshot"),
    (mixin, "applied"),
    (delegation, "visible_requests"),
    (snapshot, "_read_running"),
    (snapshot, "_waiting_blocks"),
    (Policy, "plan"),
    (SloTokenBudget, "__call__"),
    (StepTimeModel, "predict"),
    (StepTimeModel, "observe"),
    (WaitingOrder, "expire"),
    (WaitingOrder, "owes"),
    (Promises, "place"),
    (Promises, "due"),
    (Promises, "company"),
    (Promises, "bypass"),
    (Promises, "is_late"),
    (Promises, "scheduled"),
    (Promises, "came"),
    (Promises, "finished"),
    (StepObserver, "scheduled"),
    (StepObserver, "unplanned"),
    (StepObserver, "finished"),
    (StepTimer, "finished"),
    (StepRecorder, "count_schedule"),
    (StepRecorder, "count_result"),
    (StepRecorder, "count_fault"),
    (ObjectivesRecorder, "relegated"),
    (ObjectivesRecorder, "ended"),
]


@pytest.fixture(autouse=True)
def _faults_are_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Faults, "are_raised", False)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(faults.logger, "error", lambda text, *args, **_: lines.append(text % args))
    return lines


def failing(original: Callable[..., Any], fails: Callable[[], bool]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if fails():
            raise ZeroDivisionError("made by a test")
        return original(*args, **kwargs)

    return wrapper


def loaded(ours: type, **settings: Any) -> SchedulerLoop:
    """Few KV blocks, some requests that decode, more that come while they do."""
    objectives = {"ttft_slo_ms": 1, "tpot_slo_ms": 50}
    loop = SchedulerLoop(ours, {**objectives, **settings}, num_blocks=60, max_num_seqs=6)
    for i in range(8):
        loop.add(f"early{i}", 30 + 40 * i, max_tokens=20)
    for i in range(60):
        loop.step()
        if i % 6 == 0:
            loop.add(f"late{i}", 100 + i, max_tokens=12)
    return loop


@cache
def answers(ours: type) -> dict[str, list[int]]:
    """The tokens where nothing fails."""
    loop = loaded(ours)
    loop.run()
    return loop.outputs


@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
@pytest.mark.parametrize("every", [1, 37])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_whatever_fails_every_request_gets_its_tokens(
    owner: Any, name: str, every: int, ours: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(ours)
    num_calls = 0

    def fails() -> bool:
        nonlocal num_calls
        num_calls += 1
        return num_calls % every == 0

    monkeypatch.setattr(owner, name, failing(getattr(owner, name), fails))
    loop = loaded(ours)
    loop.run()
    assert loop.outputs == whole
    assert loop.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 59
    assert not loop.scheduler.running


def test_where_nobody_can_be_refused_all_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers(SarathiScheduler)
    monkeypatch.setattr(Shedding, "end", failing(Shedding.end, lambda: True))
    loop = loaded(SarathiScheduler, shed=True)
    loop.run()
    assert loop.outputs == whole


def test_a_fault_is_told_once_and_counted_and_stands_in_the_step_log(
    monkeypatch: pytest.MonkeyPatch, said: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "steps.jsonl"
    loop = SchedulerLoop(SarathiScheduler, {"step_log": str(log)})
    loop.add("a", 20, max_tokens=300)
    steps = iter(range(1000))

    def is_seldom() -> bool:
        return next(steps) % WITHIN_STEPS == 0

    monkeypatch.setattr(Policy, "plan", failing(Policy.plan, is_seldom))
    loop.run()
    assert not loop.scheduler._faults.is_given_up
    (line,) = said
    assert "planning" in line
    catalogue = loop.scheduler._recorder.catalogue
    for name, label in (
        ("faults_total", {"where": "planning"}),
        ("steps_total", {"limit": "vllm"}),
    ):
        labels = {**catalogue.labels, **label}
        assert catalogue.registry.get_sample_value(f"vllm_sarathi:{name}", labels) == MOST_FAULTS
    logged = [line for line in map(json.loads, log.read_text().splitlines()) if "fault" in line]
    assert logged == [{"fault": "planning", "error": "ZeroDivisionError('made by a test')"}] * 3


def test_after_repeated_faults_vllm_decides_all_in_order_of_arrival(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    loop = SchedulerLoop(SarathiScheduler, {"order": "srpf"}, max_num_seqs=1)
    for i, num_prompt in enumerate((900, 500, 100)):
        loop.add(f"r{i}", num_prompt, max_tokens=4, arrival_time=float(i + 1))
    with monkeypatch.context() as broken:
        broken.setattr(Policy, "plan", failing(Policy.plan, lambda: True))
        for _ in range(MOST_FAULTS):
            loop.step()
    assert loop.scheduler._faults.is_given_up
    loop.step()
    assert loop.scheduler.batch_policy.builder is None
    assert type(loop.scheduler.waiting).__module__.startswith("vllm.v1")
    waiting = [request.request_id for request in loop.scheduler.waiting]
    assert waiting == sorted(waiting)
    loop.run()
    assert all(len(tokens) == 4 for tokens in loop.outputs.values())
    assert "'planning'" in said[-1]
    assert "vLLM schedules alone" in said[-1]
    assert len(said) == 2


def test_a_fault_of_vllms_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = SchedulerLoop(SarathiScheduler)
    loop.add("a", 20)
    manager = type(loop.scheduler.kv_cache_manager)
    monkeypatch.setattr(manager, "allocate_slots", failing(manager.allocate_slots, lambda: True))
    with pytest.raises(ZeroDivisionError):
        loop.step()
