"""Pipelines: as many batches in flight as stages, decodes spread evenly."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.config import LoRAConfig
from vllm.lora.request import LoRARequest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler


def pipeline(ours: type, num_stages: int, **chosen: object) -> SchedulerLoop:
    loop = SchedulerLoop(ours, chosen, in_flight=num_stages, pipeline_parallel_size=num_stages)
    for i in range(8):
        loop.add(f"r{i}", 20, max_tokens=20)
    return loop


@pytest.mark.parametrize("num_stages", [2, 4])
def test_a_burst_of_decodes_spreads_over_the_stages(num_stages: int) -> None:
    loop = pipeline(SarathiScheduler, num_stages)
    loop.run()
    share = 8 // num_stages
    assert loop.batches[4:20] == [f"D{share}"] * 16


def test_stock_vllm_gives_them_all_to_one_micro_batch() -> None:
    loop = pipeline(Scheduler, 2)
    loop.run()
    assert set(loop.batches[2:20]) == {"D8", "-"}


def test_unbalanced_by_choice_is_as_stock() -> None:
    loop = pipeline(SarathiScheduler, 2, balance_micro_batches=False)
    loop.run()
    assert set(loop.batches[2:20]) == {"D8", "-"}


def test_a_lone_decode_loses_nothing() -> None:
    loops = [
        SchedulerLoop(ours, in_flight=2, pipeline_parallel_size=2)
        for ours in (Scheduler, SarathiScheduler)
    ]
    for loop in loops:
        loop.add("alone", 20, max_tokens=10)
        loop.run()
    assert loops[0].batches == loops[1].batches


@pytest.mark.parametrize("num_blocks", [40, 5000])
def test_the_tokens_are_those_of_one_stage(num_blocks: int) -> None:
    outputs = []
    for ours, num_stages in ((Scheduler, 1), (SarathiScheduler, 2), (SarathiScheduler, 4)):
        loop = SchedulerLoop(
            ours, num_blocks=num_blocks, in_flight=num_stages, pipeline_parallel_size=num_stages
        )
        for i in range(9):
            loop.add(f"r{i}", 30 + 20 * i, max_tokens=40)
        loop.run()
        outputs.append(loop.outputs)
    assert outputs[0] == outputs[1] == outputs[2]


def test_those_left_out_come_first_in_the_next_micro_batch() -> None:
    loop = SchedulerLoop(SarathiScheduler, in_flight=4, pipeline_parallel_size=4)
    random = Random(3)
    last: dict[str, int] = {}
    gaps: list[int] = []
    for i in range(60):
        loop.add(f"r{i}", random.randint(5, 300), max_tokens=random.randint(2, 60))
        for _ in range(random.randint(0, 5)):
            output = loop.step()
            step = len([batch for batch in loop.batches if batch != "-"])
            for name in output.num_scheduled_tokens if output else ():
                decodes = not loop.scheduler.requests[name].is_prefill_chunk
                if decodes and name in last:
                    gaps.append(step - last[name])
                last[name] = step
    assert gaps
    assert max(gaps) <= 5


@pytest.mark.parametrize("scheduler_class", [Scheduler, SarathiScheduler])
def test_no_more_adapters_meet_in_a_micro_batch_than_vllm_allows(scheduler_class: type) -> None:
    loop = SchedulerLoop(scheduler_class, in_flight=2, pipeline_parallel_size=2)
    loop.scheduler.lora_config = LoRAConfig(max_loras=1)
    adapters = [LoRARequest(name, i + 1, f"/{name}") for i, name in enumerate("ab")]
    for i in range(4):
        loop.add(f"r{i}", 20, max_tokens=30, lora_request=adapters[i == 3])
    loop.run()
    assert all(len(tokens) == 30 for tokens in loop.outputs.values())


@pytest.mark.parametrize("scheduler_class", [Scheduler, SarathiScheduler])
def test_of_decodes_in_turns_the_least_important_is_preempted(scheduler_class: type) -> None:
    loop = SchedulerLoop(
        scheduler_class,
        {"preset": "stall-free", "token_budget": 2048},
        num_blocks=252,
        in_flight=2,
        pipeline_parallel_size=2,
        scheduling_policy="priority",
    )
    config = loop.scheduler.scheduler_config
    config.long_prefill_token_threshold = 1000
    loop.add("long", 4000, max_tokens=4)
    for i in range(8):
        loop.add(f"r{i}", 120, max_tokens=100, priority=9 * (i == 7))
    output = loop.schedule()
    loop._answer(output, loop._run(output))
    config.long_prefill_token_threshold = 0
    loop.run()
    assert loop.preempted[0] == "r7"


def pipelined(ours: type, num_stages: int, **options: Any) -> SchedulerLoop:
    """With as many batches in flight as vLLM has: one more where its V2 runner overlaps."""
    overlaps = issubclass(ours, AsyncScheduler)
    in_flight = num_stages + overlaps
    loop = SchedulerLoop(ours, in_flight=in_flight, pipeline_parallel_size=num_stages, **options)
    loop.scheduler.use_v2_model_runner = overlaps
    return loop


@settings(max_examples=40)
@given(
    traffic=st.lists(
        st.tuples(st.integers(1, 600), st.integers(1, 25), st.integers(0, 6), st.booleans()),
        min_size=2,
        max_size=12,
    ),
    aborted=st.integers(0, 11),
    num_stages=st.sampled_from([2, 3, 4]),
    ours=st.sampled_from([SarathiScheduler, AsyncSarathiScheduler]),
    num_blocks=st.sampled_from([60, 90, 5000]),
    caching=st.booleans(),
    policy=st.sampled_from(["fcfs", "priority"]),
)
def test_any_traffic_through_a_pipeline_gets_the_tokens_of_one_stage(
    traffic: list[tuple[int, int, int, bool]],
    aborted: int,
    num_stages: int,
    ours: type,
    num_blocks: int,
    caching: bool,
    policy: str,
) -> None:
    """Requests of (prompt, output, steps until the next, shared prefix); one is aborted."""
    outputs = []
    for loop in (
        SchedulerLoop(Scheduler, enable_prefix_caching=caching),
        pipelined(
            ours,
            num_stages,
            num_blocks=num_blocks,
            enable_prefix_caching=caching,
            scheduling_policy=policy,
        ),
    ):
        for i, (num_prompt, num_output, pause, shared) in enumerate(traffic):
            prompt = [(i * (not shared) + j) % 1000 for j in range(num_prompt)]
            loop.add(f"r{i}", prompt=prompt, max_tokens=num_output)
            for _ in range(pause):
                loop.step()
        if f"r{aborted}" in loop.scheduler.requests:
            loop.scheduler.finish_requests(f"r{aborted}", RequestStatus.FINISHED_ABORTED)
        loop.run()
        loop.outputs.pop(f"r{aborted}", None)
        outputs.append(loop.outputs)
        pool = loop.scheduler.kv_cache_manager.block_pool
        assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1
    assert outputs[1] == outputs[0]
