"""Free and cached KV blocks: who is admitted, and what a plan knows of a prefix."""

from typing import Any

import pytest
import torch
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import KVCacheGroupSpec, SlidingWindowSpec
from vllm.v1.request import RequestStatus

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import SarathiScheduler
from vllm_sarathi.scheduler.kv_blocks import num_spared_tokens

BOTH = [Scheduler, SarathiScheduler]
STALL_FREE = {"preset": "stall-free", "token_budget": 512}  # whatever time steps take


def steps_until_first_token(loop: SchedulerLoop, name: str) -> int:
    for step in range(1, 300):
        loop.step()
        if loop.outputs[name]:
            return step
    raise AssertionError(f"{name} got no token: {loop.batches}")


def decoding(scheduler_class: type, **options: Any) -> SchedulerLoop:
    """A loop with one request that decodes for long."""
    loop = SchedulerLoop(scheduler_class, STALL_FREE, **options)
    loop.add("decode", 20, max_tokens=400)
    for _ in range(3):
        loop.step()
    return loop


@pytest.mark.parametrize("scheduler_class", BOTH)
def test_a_request_that_holds_its_blocks_does_not_wait_for_those_of_another(
    scheduler_class: type,
) -> None:
    loop = decoding(scheduler_class, num_blocks=200)
    scheduler = loop.scheduler
    holder = loop.add("holder", 320, max_tokens=4)
    scheduler.waiting.remove_request(holder)
    scheduler.kv_cache_manager.allocate_slots(holder, 319)  # as a KV connector does
    holder.num_computed_tokens = 319
    scheduler._enqueue_waiting_request(holder)
    loop.add("large", 2900, max_tokens=4)
    assert steps_until_first_token(loop, "holder") == 1


@pytest.mark.parametrize("scheduler_class", BOTH)
def test_a_request_that_waits_for_its_grammar_keeps_nobody_out(scheduler_class: type) -> None:
    class Pending:
        grammar = grammar_error = None

    loop = decoding(scheduler_class, num_blocks=200)
    large = loop.add("large", 2900, max_tokens=4)
    loop.scheduler.waiting.remove_request(large)
    large.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    large.structured_output_request = Pending()
    loop.scheduler._enqueue_waiting_request(large)
    loop.add("small", 30, max_tokens=4)
    assert steps_until_first_token(loop, "small") == 1


@pytest.mark.parametrize("scheduler_class", BOTH)
def test_a_prompt_is_not_kept_out_for_blocks_that_sliding_windows_never_take(
    scheduler_class: type,
) -> None:
    window = SlidingWindowSpec(
        block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32, sliding_window=128
    )
    groups = [KVCacheGroupSpec([f"window{i}"], window) for i in range(5)]
    loop = decoding(scheduler_class, num_blocks=2900, more_groups=groups)
    loop.add("prompt", 8000, max_tokens=2)
    assert steps_until_first_token(loop, "prompt") < 20
    assert loop.preempted == []


@pytest.mark.parametrize("num_shared", [0, 10, 16, 100, 160, 200])
def test_cached_tokens_are_those_that_vllm_finds(num_shared: int) -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    loop.add("first", prompt=[5] * 160, max_tokens=1)
    loop.run()
    prompt = [5] * num_shared + [7] * 20
    request = loop.add("next", prompt=prompt if num_shared < 160 else [5] * num_shared)
    found = loop.scheduler.kv_cache_manager.get_computed_blocks(request)[1]
    assert num_spared_tokens(loop.scheduler, request) == found


def test_a_cached_prefix_is_context_to_the_first_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e6]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    loop = SchedulerLoop(
        SarathiScheduler,
        {"tbt_slo_ms": 60},
        num_blocks=40_000,
        max_model_len=60_000,
        enable_prefix_caching=True,
    )
    prefix = [i % 997 for i in range(50_000)]
    loop.add("decode", 20, max_tokens=3000)
    loop.step()
    loop.add("first turn", prompt=prefix, max_tokens=1)

    def timed_step() -> float:
        output = loop.schedule()
        computed = {r.request_id: r.num_computed_tokens for r in loop.scheduler.running}
        pairs = sum(n * (computed[name] - n / 2) for name, n in output.num_scheduled_tokens.items())
        duration_s: float = 0.008 + 9e-5 * output.total_num_scheduled_tokens + 4e-9 * pairs
        now[0] += duration_s
        loop._answer(output, loop._run(output))
        return duration_s

    while "first turn" in loop.scheduler.requests:
        timed_step()
    loop.add("second turn", prompt=[*prefix, *range(1, 900)], max_tokens=1)
    durations_s = []
    while "second turn" in loop.scheduler.requests:
        durations_s.append(timed_step())
    assert max(durations_s) <= 0.06
