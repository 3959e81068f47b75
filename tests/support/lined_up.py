"""vLLM's list of running requests, written as a string: ``P D D`` is a prefill, two decodes."""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.scheduler_loop import BLOCK_SIZE, SchedulerLoop
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.state import Outlook
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.scheduler.promises import Promises
from vllm_sarathi.scheduler.snapshot import Snapshot, take_snapshot

NUM_PROMPT = 600
"""Prompt tokens of a prefill, the first block of which is computed."""


def lined_up(letters: str, scheduler_class: type = Scheduler, **options: Any) -> SchedulerLoop:
    """A loop that runs ``d0``, ``d1``, ... and ``p0``, ``p1``, ... in that order.

    Each has one block of tokens in the KV cache, so that a decode needs a second one next.
    """
    loop = SchedulerLoop(scheduler_class, **{"num_blocks": 500, **options})
    config, counts = loop.scheduler.scheduler_config, {"D": 0, "P": 0}
    before = config.long_prefill_token_threshold
    config.long_prefill_token_threshold = BLOCK_SIZE
    loop.add("guard", BLOCK_SIZE, max_tokens=1)  # vLLM ignores the threshold for one alone
    for letter in letters.split():
        name = f"{letter.lower()}{counts[letter]}"
        counts[letter] += 1
        loop.add(name, BLOCK_SIZE if letter == "D" else NUM_PROMPT, max_tokens=64)
    output = loop.schedule()
    loop._answer(output, loop._run(output))
    config.long_prefill_token_threshold = before
    loop.batches.clear()
    return loop


def names(requests: Any) -> str:
    """Ids of requests, or of views of them, in their order."""
    return " ".join(request.request_id for request in requests)


def leave_free(loop: SchedulerLoop, num_blocks: int) -> None:
    """Take KV blocks until so many are free."""
    pool = loop.scheduler.kv_cache_manager.block_pool
    pool.get_new_blocks(pool.get_num_free_blocks() - num_blocks)


def seen(loop: SchedulerLoop) -> Snapshot:
    """What is read of the queues where nothing is promised and vLLM's order stands."""
    settings = SarathiConfig(preset="stall-free", token_budget=256)
    return take_snapshot(
        loop.scheduler, Outlook(), Promises.of(loop.scheduler, settings, StepTimeModel())
    )
