"""A policy of a few lines over the hook makes the batches of this package's schedulers."""

from typing import Any

import pytest
from vllm.lora.request import LoRARequest

from tests.patches.small_policies import DecodeMaximal, Skipping, StallFree
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler

POLICIES: dict[type, dict[str, Any]] = {
    DecodeMaximal: {"preset": "decode-maximal", "chunk_size": 48, "tile_size": 1},
    StallFree: {"preset": "stall-free", "token_budget": 64, "tile_size": 1, "order": "fcfs"},
}

for_each_policy = pytest.mark.parametrize("policy", POLICIES)


def both(policy: type, **options: Any) -> tuple[SchedulerLoop, SchedulerLoop]:
    """The policy over the hook, and ours."""
    return (
        SchedulerLoop(policy, **options),
        SchedulerLoop(AsyncSarathiScheduler, POLICIES[policy], **options),
    )


@for_each_policy
def test_prompts_at_once_make_the_same_batches(policy: type) -> None:
    loops = both(policy)
    for loop in loops:
        for i, num_prompt in enumerate((100, 30, 250, 10)):
            loop.add(str(i), num_prompt)
    hook, ours = (loop.run() for loop in loops)
    assert hook == ours
    assert "P" in hook
    assert loops[0].outputs == loops[1].outputs


@for_each_policy
def test_prompts_among_decodes_make_the_same_batches(policy: type) -> None:
    loops = [loop.with_decodes() for loop in both(policy)]
    for loop in loops:
        for i, num_prompt in enumerate((200, 40, 90)):
            loop.add(str(i), num_prompt)
            loop.step()
    hook, ours = (loop.run() for loop in loops)
    assert hook == ours
    assert loops[0].outputs == loops[1].outputs


@for_each_policy
def test_more_requests_than_may_run_make_the_same_batches(policy: type) -> None:
    loops = both(policy, max_num_seqs=3)
    for loop in loops:
        for i in range(8):
            loop.add(str(i), 20 + 30 * i, max_tokens=4 + i)
    hook, ours = (loop.run() for loop in loops)
    assert hook == ours


def test_a_request_that_sits_out_keeps_its_adapter() -> None:
    loop = SchedulerLoop(Skipping, enable_lora=True, max_loras=1, max_lora_rank=8)
    for i in (1, 2):
        loop.add(str(i), 20, max_tokens=4, lora_request=LoRARequest(f"adapter{i}", i, "/nowhere"))
    loop.run()
    assert [len(tokens) for tokens in loop.outputs.values()] == [4, 4]


@for_each_policy
def test_scarce_memory_loses_no_token(policy: type) -> None:
    loops = both(policy, num_blocks=20)
    for loop in loops:
        for i in range(4):
            loop.add(str(i), 40, max_tokens=60)
        loop.run()
    assert loops[0].preempted
    assert loops[0].outputs == loops[1].outputs
