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

from tests.support.engineless import Engine
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler


def pipeline(ours: type, num_stages: int, **chosen: object) -> Engine:
    engine = Engine(ours, chosen, in_flight=num_stages, pipeline_parallel_size=num_stages)
    for i in range(8):
        engine.add(f"r{i}", 20, max_tokens=20)
    return engine


@pytest.mark.parametrize("num_stages", [2, 4])
def test_a_burst_of_decodes_spreads_over_the_stages(num_stages: int) -> None:
    engine = pipeline(SarathiScheduler, num_stages)
    engine.run()
    share = 8 // num_stages
    assert engine.batches[4:20] == [f"D{share}"] * 16


def test_stock_vllm_gives_them_all_to_one_micro_batch() -> None:
    engine = pipeline(Scheduler, 2)
    engine.run()
    assert set(engine.batches[2:20]) == {"D8", "-"}


def test_unbalanced_by_choice_is_as_stock() -> None:
    engine = pipeline(SarathiScheduler, 2, balance_micro_batches=False)
    engine.run()
    assert set(engine.batches[2:20]) == {"D8", "-"}


def test_a_lone_decode_loses_nothing() -> None:
    engines = [
        Engine(ours, in_flight=2, pipeline_parallel_size=2)
        for ours in (Scheduler, SarathiScheduler)
    ]
    for engine in engines:
        engine.add("alone", 20, max_tokens=10)
        engine.run()
    assert engines[0].batches == engines[1].batches


@pytest.mark.parametrize("num_blocks", [40, 5000])
def test_the_tokens_are_those_of_one_stage(num_blocks: int) -> None:
    outputs = []
    for ours, num_stages in ((Scheduler, 1), (SarathiScheduler, 2), (SarathiScheduler, 4)):
        engine = Engine(
            ours, num_blocks=num_blocks, in_flight=num_stages, pipeline_parallel_size=num_stages
        )
        for i in range(9):
            engine.add(f"r{i}", 30 + 20 * i, max_tokens=40)
        engine.run()
        outputs.append(engine.outputs)
    assert outputs[0] == outputs[1] == outputs[2]


def test_those_left_out_come_first_in_the_next_micro_batch() -> None:
    engine = Engine(SarathiScheduler, in_flight=4, pipeline_parallel_size=4)
    random = Random(3)
    last: dict[str, int] = {}
    gaps: list[int] = []
    for i in range(60):
        engine.add(f"r{i}", random.randint(5, 300), max_tokens=random.randint(2, 60))
        for _ in range(random.randint(0, 5)):
            output = engine.step()
            step = len([batch for batch in engine.batches if batch != "-"])
            for name in output.num_scheduled_tokens if output else ():
                decodes = not engine.scheduler.requests[name].is_prefill_chunk
                if decodes and name in last:
                    gaps.append(step - last[name])
                last[name] = step
    assert gaps
    assert max(gaps) <= 5


@pytest.mark.parametrize("scheduler_class", [Scheduler, SarathiScheduler])
def test_no_more_adapters_meet_in_a_micro_batch_than_vllm_allows(scheduler_class: type) -> None:
    engine = Engine(scheduler_class, in_flight=2, pipeline_parallel_size=2)
    engine.scheduler.lora_config = LoRAConfig(max_loras=1)
    adapters = [LoRARequest(name, i + 1, f"/{name}") for i, name in enumerate("ab")]
    for i in range(4):
        engine.add(f"r{i}", 20, max_tokens=30, lora_request=adapters[i == 3])
    engine.run()
    assert all(len(tokens) == 30 for tokens in engine.outputs.values())


@pytest.mark.parametrize("scheduler_class", [Scheduler, SarathiScheduler])
def test_of_decodes_in_turns_the_least_important_is_preempted(scheduler_class: type) -> None:
    engine = Engine(
        scheduler_class,
        {"preset": "stall-free", "token_budget": 2048},
        num_blocks=252,
        in_flight=2,
        pipeline_parallel_size=2,
        scheduling_policy="priority",
    )
    config = engine.scheduler.scheduler_config
    config.long_prefill_token_threshold = 1000
    engine.add("long", 4000, max_tokens=4)
    for i in range(8):
        engine.add(f"r{i}", 120, max_tokens=100, priority=9 * (i == 7))
    output = engine.schedule()
    engine._answer(output, engine._run(output))
    config.long_prefill_token_threshold = 0
    engine.run()
    assert engine.preempted[0] == "r7"


def pipelined(ours: type, num_stages: int, **options: Any) -> Engine:
    """With as many batches in flight as vLLM has: one more where its V2 runner overlaps."""
    overlaps = issubclass(ours, AsyncScheduler)
    in_flight = num_stages + overlaps
    engine = Engine(ours, in_flight=in_flight, pipeline_parallel_size=num_stages, **options)
    engine.scheduler.use_v2_model_runner = overlaps
    return engine


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
    for engine in (
        Engine(Scheduler, enable_prefix_caching=caching),
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
            engine.add(f"r{i}", prompt=prompt, max_tokens=num_output)
            for _ in range(pause):
                engine.step()
        if f"r{aborted}" in engine.scheduler.requests:
            engine.scheduler.finish_requests(f"r{aborted}", RequestStatus.FINISHED_ABORTED)
        engine.run()
        engine.outputs.pop(f"r{aborted}", None)
        outputs.append(engine.outputs)
        pool = engine.scheduler.kv_cache_manager.block_pool
        assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1
    assert outputs[1] == outputs[0]
