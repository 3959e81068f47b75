"""Decodes that sit batches out, over vLLM's real schedulers, without an engine."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.config import LoRAConfig
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.scheduler.mixin import SarathiMixin
from vllm_sarathi.scheduler.vllm_versions import keeps_paused_decodes

OURS = [SarathiScheduler, AsyncSarathiScheduler]


class EveryThird:
    """256 tokens; of three batches with prefill, the decodes sit two out."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, view: StepView) -> BatchSize:
        self.num_calls += 1
        waits = view.may_pause and self.num_calls % 3 != 0
        return BatchSize(256, BatchLimit.TILE, waits)


def waiting(
    scheduler_class: type, settings: dict[str, Any] | None = None, **options: Any
) -> SchedulerLoop:
    """A loop whose decodes wait whenever they may."""
    loop = SchedulerLoop(scheduler_class, settings, **options)
    loop.scheduler.batch_policy = replace(
        loop.scheduler.batch_policy, builder=StallFree(EveryThird()), pauses_decodes=True
    )
    return loop


def prefilling(scheduler_class: type, num_prompt: int, **options: Any) -> SchedulerLoop:
    """The same, of three decodes, with one batch of a long prompt done: then they may wait."""
    loop = waiting(scheduler_class, **options).with_decodes()
    loop.add("long", num_prompt, max_tokens=1)
    while loop.batches.count("D3 P253") == 0:
        loop.step()
    loop.batches.clear()
    loop.scheduler.batch_policy.builder.token_budget.num_calls = 0
    return loop


@pytest.mark.parametrize("ours", OURS)
def test_prefill_has_the_batches_that_decodes_sit_out(ours: type[SarathiMixin]) -> None:
    loop = prefilling(ours, 2000)
    for _ in range(5):
        loop.step()
    assert loop.batches[:5] == ["P256", "P256", "D3 P253", "P256", "P256"]


def test_they_are_neither_preempted_nor_reordered_while_they_wait() -> None:
    loop = prefilling(SarathiScheduler, 900)
    before = list(loop.scheduler.running)
    loop.step()
    assert loop.batches == ["P256"]
    assert loop.scheduler.running == before
    assert loop.preempted == []


def test_vllm_sees_every_decode_where_it_may_have_to_preempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = prefilling(SarathiScheduler, 900)
    pool = loop.scheduler.kv_cache_manager.block_pool
    monkeypatch.setattr(pool, "get_num_free_blocks", lambda: 30)
    loop.step()
    assert loop.batches == ["D3 P253"]


@pytest.mark.parametrize("how", [((True,), {}), ((), {"throttle_prefills": True})])
def test_decodes_run_where_vllm_says_that_prefill_shall_not(how: tuple[Any, Any]) -> None:
    loop = prefilling(SarathiScheduler, 900)
    arguments, options = how
    assert len(loop.scheduler.schedule(*arguments, **options).num_scheduled_tokens) >= 3


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("use_v2_model_runner", 0), ("num_spec_tokens", 3), ("lora_config", LoRAConfig())],
)
def test_decodes_lose_something_by_a_pause_where_the_model_runner_forgets_them(
    attribute: str, value: object
) -> None:
    scheduler = SchedulerLoop(SarathiScheduler).scheduler
    scheduler.use_v2_model_runner = True
    assert keeps_paused_decodes(scheduler)
    setattr(scheduler, attribute, value)
    assert not keeps_paused_decodes(scheduler)


@pytest.mark.parametrize("ours", OURS)
def test_decodes_do_not_wait_for_prefill_that_vllm_passes_over(
    ours: type[SarathiMixin], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = waiting(ours).with_decodes()
    loop.add("blocked", 600, max_tokens=1)
    manager = loop.scheduler.kv_cache_manager
    allocate = manager.allocate_slots
    monkeypatch.setattr(
        manager,
        "allocate_slots",
        lambda request, *args, **kwargs: (
            None if request.request_id == "blocked" else allocate(request, *args, **kwargs)
        ),
    )
    for _ in range(8):
        loop.step()
    assert set(loop.batches) == {"D3"}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 30)), min_size=1, max_size=8),
    st.sampled_from([40, 80, 1000]),
    st.booleans(),
    st.sampled_from(["fcfs", "priority"]),
    st.sampled_from(OURS),
)
def test_any_traffic_gets_the_tokens_that_stock_vllm_gives(
    traffic: list[tuple[int, int]],
    num_blocks: int,
    caching: bool,
    order: str,
    ours: type[SarathiMixin],
) -> None:
    outputs = []
    for make, scheduler_class in ((SchedulerLoop, Scheduler), (waiting, ours)):
        loop = make(
            scheduler_class,
            num_blocks=num_blocks,
            enable_prefix_caching=caching,
            scheduling_policy=order,
        )
        for i, (num_prompt, max_tokens) in enumerate(traffic):
            prompt = [j % 7 for j in range(num_prompt)]
            loop.add(f"r{i}", prompt=prompt, max_tokens=max_tokens, priority=-i)
            loop.step()
        loop.run()
        outputs.append(loop.outputs)
    assert outputs[0] == outputs[1]


def test_a_batch_smaller_than_the_decodes_that_wait_is_prefill_all_the_same() -> None:
    loop = waiting(SarathiScheduler)
    for i in range(139):
        loop.add(f"decode{i}", 4, max_tokens=500)
    while loop.batches[-1:] != ["D139"]:
        loop.step()
    loop.add("long", 7000, max_tokens=1)
    loop.step()
    running = loop.scheduler.running
    running.insert(0, running.pop())  # a prefill in front of the decodes
    sizes = BatchSize(128, BatchLimit.TILE, pauses_decodes=True)
    policy = replace(loop.scheduler.batch_policy, builder=StallFree(lambda view: sizes))
    loop.scheduler.batch_policy = policy
    loop.batches.clear()
    loop.step()
    assert loop.batches == ["P128"]


def test_decodes_wait_while_prompts_are_served_by_deadline() -> None:
    outputs = []
    for make, ours in ((SchedulerLoop, {}), (waiting, {"ttft_slo_ms": 500})):
        kind = SarathiScheduler if ours else Scheduler
        loop = make(kind, ours).with_decodes()
        for i, num_prompt in enumerate((2000, 90, 700, 300, 1500)):
            loop.add(f"prompt{i}", num_prompt, max_tokens=5, arrival_time=float(i))
            loop.step()
        loop.run()
        outputs.append(loop.outputs)
        if ours:
            assert any(batch.startswith("P") for batch in loop.batches)
    assert outputs[0] == outputs[1]
