"""Prompts in the order of their deadlines, over vLLM's real schedulers, without an engine."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler

FCFS = {"preset": "stall-free", "token_budget": 256}
BY_RANK = {**FCFS, "order": "hybrid"}
OURS = [SarathiScheduler, AsyncSarathiScheduler]


def behind_a_long_prompt(
    settings: dict[str, Any], *lengths: int, ours: type = SarathiScheduler, **options: Any
) -> SchedulerLoop:
    """Three decodes and a long prompt that runs, when others come."""
    loop = SchedulerLoop(ours, settings, **options).with_decodes()
    loop.add("long", 3000, max_tokens=1, arrival_time=0.0)
    while "D3 P253" not in loop.batches:
        loop.step()
    loop.batches.clear()
    for i, num_prompt in enumerate(lengths):
        loop.add(f"chat{i}", num_prompt, max_tokens=2, arrival_time=0.0)
    return loop


@pytest.mark.parametrize("ours", OURS)
def test_a_short_prompt_does_not_wait_for_a_long_one_that_runs(ours: type) -> None:
    loop = behind_a_long_prompt(BY_RANK, 100, ours=ours)
    loop.schedule()
    assert loop.batches == ["D3 P153 P100"]


def test_without_an_objective_for_the_first_token_it_waits_as_in_vllm() -> None:
    loop = behind_a_long_prompt(FCFS, 100)
    loop.schedule()
    assert loop.batches == ["D3 P253"]


def test_a_batch_is_shared_evenly_where_vllms_order_would_leave_the_first_due_nothing() -> None:
    loop = behind_a_long_prompt(BY_RANK, 200)
    loop.step()
    assert loop.batches == ["D3 P127 P126"]


def test_a_long_prompt_sits_a_batch_out_that_shorter_ones_fill() -> None:
    loop = behind_a_long_prompt(BY_RANK, 200, 200)
    loop.step()
    loop.step()
    assert loop.batches == ["D3 P200 P53", "D4 P147 P105"]
    assert [r.request_id for r in loop.scheduler.running][3:] == ["long", "chat1"]


def test_a_prompt_nearly_done_is_finished_first() -> None:
    loop = behind_a_long_prompt(BY_RANK)
    while loop.scheduler.requests["long"].num_computed_tokens < 2700:
        loop.step()
    loop.batches.clear()
    loop.add("chat", 600, arrival_time=0.0)
    loop.step()
    assert loop.batches == ["D3 P217 P36"]


def levers(scheduler: Any) -> tuple[Any, ...]:
    return (
        scheduler.scheduler_config.long_prefill_token_threshold,
        scheduler.max_num_scheduled_tokens,
        scheduler.max_num_running_reqs,
        getattr(scheduler, "max_num_active_reqs", None),
        getattr(scheduler, "adaptive_long_prefill_threshold", None),
    )


@pytest.mark.parametrize("lengths", [(200,), (600,)])  # shared, long one hidden
@pytest.mark.parametrize("fails", [False, True])
def test_vllms_settings_and_lists_are_whole_afterwards(
    monkeypatch: pytest.MonkeyPatch, fails: bool, lengths: tuple[int, ...]
) -> None:
    loop = behind_a_long_prompt(BY_RANK, *lengths)
    scheduler = loop.scheduler
    running, before = list(scheduler.running), levers(scheduler)
    if fails:
        monkeypatch.setattr(scheduler.kv_cache_manager, "allocate_slots", None)
        with pytest.raises(TypeError):
            scheduler.schedule()
    else:
        scheduler.schedule()
    assert levers(scheduler) == before
    assert scheduler.running[: len(running)] == running


def test_a_lower_limit_on_long_prefills_stays() -> None:
    loop = behind_a_long_prompt(BY_RANK, 200)
    loop.scheduler.scheduler_config.long_prefill_token_threshold = 50
    loop.schedule()
    assert loop.batches == ["D3 P50 P50"]


def test_nobody_makes_way_for_a_request_that_vllm_cannot_admit() -> None:
    loop = behind_a_long_prompt(BY_RANK, 600)
    blocked = loop.scheduler.requests["chat0"]
    blocked.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    loop.add("next", 20, arrival_time=0.0)
    for _ in range(4):
        loop.step()
    assert loop.batches == ["D3 P20", "D4 P252", "D4 P252", "D4 P252"]


def test_a_running_prompt_keeps_the_kv_blocks_that_it_needs_to_go_on() -> None:
    steps = {}
    for name, ours in (("stock", {}), ("by deadline", {"ttft_slo_ms": 1000})):
        kind = SarathiScheduler if ours else Scheduler
        loop = SchedulerLoop(
            kind, {"tbt_slo_ms": None, **ours}, num_blocks=200, max_num_batched_tokens=512
        )
        loop.add("long", 3000, max_tokens=2, arrival_time=0.0)
        for _ in range(5):
            loop.step()
        for i in range(3):
            loop.add(f"chat{i}", 500, max_tokens=200, arrival_time=0.1)
        loop.run()
        steps[name] = (len(loop.batches), loop.preempted, loop.batches.count("-"))
    assert steps["by deadline"] == steps["stock"]


def test_priorities_rule_over_deadlines() -> None:
    loop = SchedulerLoop(SarathiScheduler, BY_RANK, scheduling_policy="priority")
    for name, num_prompt, priority in (("c", 20, 2), ("b", 90, 1), ("a", 20, 1), ("first", 900, 0)):
        loop.add(name, num_prompt, priority=priority, arrival_time=0.0)
    assert [r.request_id for r in loop.scheduler.waiting] == ["first", "a", "b", "c"]


def test_what_the_prefix_cache_holds_does_not_make_a_prompt_long() -> None:
    loop = SchedulerLoop(SarathiScheduler, BY_RANK, enable_prefix_caching=True).with_decodes()
    loop.add("warm", prompt=[5] * 1600, max_tokens=1)
    while "warm" in loop.scheduler.requests:
        loop.step()
    loop.add("new", 800, arrival_time=0.0)
    loop.add("cached", prompt=[5] * 1620, arrival_time=0.0)
    assert [r.request_id for r in loop.scheduler.waiting] == ["cached", "new"]


arrivals = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 900), st.integers(1, 12)), min_size=1, max_size=12
)


@settings(max_examples=40, deadline=None)
@given(arrivals, st.booleans(), st.sampled_from([90, 400]), st.sampled_from([256, 1024]))
def test_every_request_gets_the_tokens_that_stock_gives_it(
    load: list[tuple[int, int, int]], is_async: bool, num_blocks: int, budget: int
) -> None:
    ours = {"preset": "stall-free", "token_budget": budget, "order": "hybrid"}
    stock, sarathi = OURS_OF[is_async]
    outputs = [
        arriving(SchedulerLoop(kind, mine, num_blocks=num_blocks), load)
        for kind, mine in ((stock, {}), (sarathi, ours))
    ]
    assert outputs[0] == outputs[1]


OURS_OF = {
    False: (Scheduler, SarathiScheduler),
    True: (AsyncScheduler, AsyncSarathiScheduler),
}


def arriving(loop: SchedulerLoop, load: list[tuple[int, int, int]]) -> dict[str, list[int]]:
    """Run requests that arrive at steps; their tokens."""
    for step in range(max(at for at, _, _ in load) + 1):
        for i, (at, num_prompt, num_output) in enumerate(load):
            if at == step:
                loop.add(f"r{i}", num_prompt, max_tokens=num_output, arrival_time=float(at))
        loop.step()
    loop.run()
    return loop.outputs
