"""Requests bypass those before them that do not fit the pace, over vLLM's real schedulers."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork

TPOT = {"tpot_slo_ms": 50}
BOTH = {"ttft_slo_ms": 600_000, "tpot_slo_ms": 50}


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as made:
        yield made


@pytest.fixture(autouse=True)
def _a_context_of_60k_takes_60_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(self: StepTimeModel, work: StepWork) -> float:
        return 1e-3 + 1e-4 * work.num_tokens + 1e-6 * work.decode_context

    monkeypatch.setattr(StepTimeModel, "predict", predict)
    monkeypatch.setattr(StepTimeModel, "observe", lambda *given: None)


def step(loop: SchedulerLoop, clock: Clock, num: int) -> None:
    for _ in range(num):
        clock.now_s += 0.02
        loop.step()


def loaded(
    clock: Clock, settings: dict[str, Any], ours: type = SarathiScheduler, **options: Any
) -> SchedulerLoop:
    """One that decodes for long, and a context behind it that does not fit the pace."""
    loop = SchedulerLoop(ours, settings, num_blocks=20_000, max_model_len=65_536, **options)
    loop.add("decodes", 100, max_tokens=200, arrival_time=clock.now_s)
    step(loop, clock, 5)
    loop.add("long", 60_000, arrival_time=clock.now_s)
    step(loop, clock, 2)
    return loop


@pytest.mark.parametrize("settings", [TPOT, BOTH])
@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
def test_a_short_context_bypasses_one_that_does_not_fit_the_pace(
    ours: type, settings: dict[str, Any], clock: Clock
) -> None:
    loop = loaded(clock, settings, ours)
    loop.add("short", 100, arrival_time=clock.now_s)
    step(loop, clock, 20)
    assert (len(loop.outputs["short"]), len(loop.outputs["long"])) == (8, 0)
    step(loop, clock, 260)
    assert len(loop.outputs["long"]) == 8


def test_a_short_context_bypasses_one_that_was_cached_while_it_waited(clock: Clock) -> None:
    options: dict[str, Any] = {"num_blocks": 20_000, "enable_prefix_caching": True}
    loop = SchedulerLoop(SarathiScheduler, BOTH, max_num_seqs=2, max_model_len=65_536, **options)
    loop.add("decodes", 44_000, max_tokens=400, arrival_time=clock.now_s)
    step(loop, clock, 10)
    prompt = [5] * 2_000
    loop.add("twin", prompt=prompt, max_tokens=1, arrival_time=clock.now_s)
    step(loop, clock, 1)
    loop.add("long", prompt=[*prompt, *range(100)], max_tokens=8, arrival_time=clock.now_s)
    loop.add("short", 100, arrival_time=clock.now_s)
    loop.scheduler._promises.order.mean_prefill = 2_000.0
    step(loop, clock, 60)
    assert len(loop.outputs["twin"]) == 1
    assert (len(loop.outputs["short"]), len(loop.outputs["long"])) == (8, 0)


def test_a_short_context_bypasses_after_any_number_of_batches_in_time(clock: Clock) -> None:
    loop = loaded(clock, BOTH)
    order = loop.scheduler._promises.order
    order.owed.num_tokens = order.owed.ageing * order.owed.batch_tokens
    loop.add("short", 100, arrival_time=clock.now_s)
    step(loop, clock, 20)
    assert len(loop.outputs["short"]) == 8


@pytest.mark.parametrize(
    ("settings", "options"),
    [({**BOTH, "shed": True}, {}), (BOTH, {"scheduling_policy": "priority"})],
)
def test_nobody_is_bypassed_where_the_late_are_refused_or_vllms_priorities_rule(
    settings: dict[str, Any], options: dict[str, Any], clock: Clock
) -> None:
    loop = loaded(clock, settings, **options)
    loop.add("short", 100, arrival_time=clock.now_s)
    step(loop, clock, 20)
    assert not loop.outputs["short"]


def test_a_session_that_pauses_holds_nobody_to_its_pace(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, {**TPOT, "order": "fcfs"})
    hurried = {"extra_args": {"tpot_slo_ms": 2.3}, "resumable": True}
    loop.add("session", 200, max_tokens=2, **hurried)
    step(loop, clock, 10)
    assert loop.scheduler.running == []
    for i in range(20):
        loop.add(f"decodes {i}", 100, max_tokens=5_000)
    step(loop, clock, 60)
    loop.add("next", 100)
    step(loop, clock, 20)
    assert len(loop.outputs["next"]) == 8
