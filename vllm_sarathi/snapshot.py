"""Reads vLLM's queues into a step view. Touches O(running) requests, none that wait."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vllm_sarathi.micro_batch import decode_share
from vllm_sarathi.step import RequestView, StepView

MAX_WAITING_SEEN = 4
"""Waiting requests that a view shows; a batch seldom admits more."""

RESERVED_BLOCKS = 4
"""Free KV blocks kept for the growth of each running request when another is admitted."""

_BLOCKS_TO_HOLD_BACK = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A step view, and the vLLM requests behind it.

    Attributes:
        view: what the batch builder sees.
        prefills: running requests with prefill left, in vLLM's order.
        decodes_first: whether vLLM's order has no prefill before a decode.
        held_back: decodes that leave their place to later micro-batches.
    """

    view: StepView
    prefills: list[Any]
    decodes_first: bool
    held_back: frozenset[Any] = frozenset()


def take_snapshot(
    scheduler: Any, num_micro_batches: int = 1, period_s: float = 0.0, slack_s: float = 0.0
) -> Snapshot:
    """Read the requests that vLLM's ``schedule()`` could run now.

    Args:
        scheduler: a vLLM ``Scheduler`` between two calls of ``schedule()``.
        num_micro_batches: batches over which the decodes are spread evenly.
        period_s: predicted time of the longest micro-batch in flight, in seconds.
        slack_s: how much longer than the objective a gap may be now, in seconds.
    """
    running = scheduler.running
    prefills = [request for request in running if request.is_prefill_chunk]
    ready = _ready_decodes(running, scheduler.current_step + 1)
    num_decodes = len(running) - len(prefills)
    share = decode_share(len(ready), num_decodes, num_micro_batches)
    if share < len(ready) and num_free_blocks(scheduler) < _BLOCKS_TO_HOLD_BACK * len(running):
        share = len(ready)  # whom vLLM would preempt has to be there
    held_back = frozenset(request for _, _, request in ready[share:])
    del ready[share:]
    seats = admission_limit(scheduler) - len(running) - scheduler.num_waiting_for_streaming_input
    waiting = _first_waiting(scheduler)
    spare_blocks = _num_spare_blocks(scheduler, prefills)
    is_kv_bound = bool(num_decodes and scheduler.waiting) and not _fits(scheduler, spare_blocks)
    view = StepView(
        max_num_scheduled_tokens=scheduler.max_num_scheduled_tokens,
        num_decodes=len(ready),
        num_decode_tokens=sum(num_tokens for num_tokens, _, _ in ready),
        decode_context_tokens=sum(computed for _, computed, _ in ready),
        num_in_flight=num_decodes - len(ready),
        prefills=tuple(map(_view, prefills)),
        waiting=waiting,
        num_waiting=scheduler.get_request_counts()[1],
        max_new_prefills=0 if is_kv_bound else max(seats, 0),
        max_new_tokens=max(spare_blocks, 0) * scheduler.block_size,
        is_kv_bound=is_kv_bound,
        period_s=period_s,
        slack_s=slack_s,
    )
    decodes_first = prefills == running[num_decodes:]
    return Snapshot(view, prefills, decodes_first, held_back)


def _ready_decodes(running: list[Any], next_step: int) -> list[tuple[int, int, Any]]:
    """Decodes that vLLM can schedule now: tokens, context and request of each."""
    ready = []
    for request in running:
        if request.is_prefill_chunk:
            continue
        computed = request.num_computed_tokens
        placeholders = request.num_output_placeholders
        num_tokens = request.num_tokens_with_spec + placeholders - computed
        if num_tokens <= 0 or next_step < request.next_decode_eligible_step:
            continue  # its last token is still in flight
        if placeholders and computed + 2 - placeholders >= _max_total_tokens(request):
            continue  # the step in flight reaches its limit
        ready.append((num_tokens, computed, request))
    return ready


def _num_spare_blocks(scheduler: Any, prefills: list[Any]) -> int:
    """KV blocks of each group that admitted requests may fill.

    The prompts that run shall be finished, and all that run still grow for a while:
    else an admission is soon followed by a preemption, whose prefill is then computed
    twice.
    """
    promised = sum(view.num_tokens for view in map(_view, prefills))
    num_blocks = promised // scheduler.block_size + 1
    num_blocks += RESERVED_BLOCKS * len(scheduler.running)
    num_groups = len(scheduler.kv_cache_config.kv_cache_groups)
    return num_free_blocks(scheduler) // num_groups - int(num_blocks)


def _fits(scheduler: Any, spare_blocks: int) -> bool:
    """Whether the first waiting request may be admitted."""
    head = scheduler.waiting.peek_request()
    missing = _view(head).num_tokens // int(scheduler.block_size) + 1 - spare_blocks
    return missing <= 0 or missing <= _num_shared_blocks(scheduler, head)


def _num_shared_blocks(scheduler: Any, request: Any) -> int:
    """Blocks of a request's prefix that running requests hold already."""
    pool, hashes = scheduler.kv_cache_manager.block_pool, request.block_hashes

    def is_free(index: int) -> bool:
        blocks = pool.get_cached_block(hashes[index], [0])
        return not blocks or blocks[0].ref_cnt == 0

    return bisect_left(range(len(hashes)), True, key=is_free)


def _first_waiting(scheduler: Any) -> tuple[RequestView, ...]:
    """The requests that vLLM would admit next. Iterating a priority queue copies it: peek."""
    waiting = scheduler.waiting
    if not waiting:
        return tuple(map(_view, islice(_blocked_queue(scheduler), 1)))
    if isinstance(waiting, deque):
        return tuple(map(_view, islice(waiting, MAX_WAITING_SEEN)))
    return (_view(waiting.peek_request()),)


def _view(request: Any) -> RequestView:
    computed = request.num_computed_tokens
    num_tokens = request.num_tokens_with_spec + request.num_output_placeholders - computed
    return RequestView(request.request_id, max(num_tokens, 1), computed)


def _max_total_tokens(request: Any) -> int:
    return int(request.num_prompt_tokens + request.max_tokens)


def _blocked_queue(scheduler: Any) -> Any:
    """vLLM's second waiting queue: requests that hold KV blocks or were skipped."""
    name = "kv_holding_waiting" if hasattr(scheduler, "kv_holding_waiting") else "skipped_waiting"
    return getattr(scheduler, name)


def admission_attribute(scheduler: Any) -> str:
    """Name of vLLM's limit on running requests; newer versions keep one for admission alone."""
    newer = "max_num_active_reqs"
    return newer if hasattr(scheduler, newer) else "max_num_running_reqs"


def admission_limit(scheduler: Any) -> int:
    """How many requests vLLM lets run at once."""
    return int(getattr(scheduler, admission_attribute(scheduler)))


def num_free_blocks(scheduler: Any) -> int:
    """KV blocks that no running request holds."""
    return int(scheduler.kv_cache_manager.block_pool.get_num_free_blocks())
