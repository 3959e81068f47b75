"""Reads vLLM's queues into a step view. Touches O(running) requests, none that wait."""

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any

from vllm_sarathi.kv_blocks import (
    fits,
    holds_every_token,
    num_cached_tokens,
    num_spare_blocks,
    num_tokens_that_fit,
)
from vllm_sarathi.micro_batch import decode_share
from vllm_sarathi.step import RequestView, StepView

MAX_WAITING_SEEN = 4  # waiting requests that a view shows; a batch seldom admits more


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A step view, and the vLLM requests behind it.

    Attributes:
        view: what the batch builder sees.
        prefills: running requests with prefill left, in vLLM's order.
        decodes_first: whether vLLM's order has no prefill before a decode.
        held_back: decodes that leave their place to later micro-batches, in the order
            in which they take theirs.
    """

    view: StepView
    prefills: list[Any]
    decodes_first: bool
    held_back: tuple[Any, ...] = ()


def take_snapshot(
    scheduler: Any,
    num_micro_batches: int = 1,
    period_s: float = 0.0,
    slack_s: float = 0.0,
    held_back: Sequence[Any] = (),
) -> Snapshot:
    """Read the requests that vLLM's ``schedule()`` could run now.

    Args:
        scheduler: a vLLM ``Scheduler`` between two calls of ``schedule()``.
        num_micro_batches: batches over which the decodes are spread evenly.
        period_s: predicted time of the longest micro-batch in flight, in seconds.
        slack_s: how much longer than the objective a gap may be now, in seconds.
        held_back: what the last snapshot held back; now it comes first.
    """
    running = scheduler.running
    prefills = [request for request in running if request.is_prefill_chunk]
    num_decodes = len(running) - len(prefills)
    left = tuple(map(_view, prefills))
    num_left = sum(view.num_tokens for view in left)
    ready, later = _cohort(scheduler, num_decodes, num_micro_batches, num_left, held_back)
    spare_blocks = num_spare_blocks(scheduler, num_left)
    waiting = _first_waiting(scheduler)
    num_fitting = _num_fitting(scheduler, waiting, spare_blocks) if num_decodes else sys.maxsize
    view = StepView(
        max_num_scheduled_tokens=scheduler.max_num_scheduled_tokens,
        num_decodes=len(ready),
        num_decode_tokens=sum(num_tokens for num_tokens, _, _ in ready),
        decode_context_tokens=sum(computed for _, computed, _ in ready),
        num_in_flight=num_decodes - len(ready),
        prefills=left,
        waiting=waiting,
        num_waiting=scheduler.get_request_counts()[1],
        max_new_prefills=min(num_fitting, _num_seats(scheduler)),
        max_new_tokens=max(spare_blocks, 0) * scheduler.block_size,
        is_kv_bound=num_fitting == 0,
        period_s=period_s,
        slack_s=slack_s,
    )
    held = tuple(request for _, _, request in later)
    return Snapshot(view, prefills, prefills == running[num_decodes:], held)


_Decode = tuple[int, int, Any]
"""Tokens, context and request."""


def _cohort(
    scheduler: Any,
    num_decodes: int,
    num_micro_batches: int,
    num_prefill_tokens: int,
    held_back: Sequence[Any],
) -> tuple[list[_Decode], list[_Decode]]:
    """The decodes of the next micro-batch, and those that leave their place to later ones."""
    ready = _ready_decodes(scheduler.running, scheduler.current_step + 1)
    share = decode_share(len(ready), num_decodes, num_micro_batches)
    if share == len(ready) or not _may_hide(scheduler, ready, num_prefill_tokens):
        return ready, []
    turns = {request: turn for turn, request in enumerate(held_back)}
    ready.sort(key=lambda decode: turns.get(decode[2], len(turns)))
    return ready[:share], ready[share:]


def _ready_decodes(running: list[Any], next_step: int) -> list[_Decode]:
    """Decodes that vLLM can schedule now."""
    ready = []
    for request in running:
        if request.is_prefill_chunk:
            continue
        computed = request.num_computed_tokens
        placeholders = request.num_output_placeholders
        num_tokens = request.num_tokens_with_spec + placeholders - computed
        if num_tokens <= 0 or next_step < request.next_decode_eligible_step:
            continue  # its last token is still in flight
        most = request.num_prompt_tokens + request.max_tokens
        if placeholders and computed + 2 - placeholders >= most:
            continue  # the step in flight reaches its limit
        ready.append((num_tokens, computed, request))
    return ready


def _may_hide(scheduler: Any, ready: list[_Decode], num_prefill_tokens: int) -> bool:
    """Whether vLLM can do without seeing some decodes in this step.

    It has to see whom it would preempt, and which adapters run.
    """
    if scheduler.lora_config:
        return False
    num_tokens = min(num_prefill_tokens, int(scheduler.max_num_scheduled_tokens))
    num_tokens += sum(num_tokens for num_tokens, _, _ in ready)
    return num_tokens_that_fit(scheduler, len(scheduler.running)) >= num_tokens


def _num_fitting(scheduler: Any, waiting: Sequence[RequestView], num_spare: int) -> int:
    """How many waiting requests find KV blocks for all of their prefill.

    No bound where vLLM would pass the first one over, where others wait that hold their
    blocks already, or where all in the view fit.
    """
    if not scheduler.waiting or _blocked_queue(scheduler) or scheduler.lora_config:
        return sys.maxsize
    head = scheduler.waiting.peek_request()
    if head in getattr(scheduler, "deferred_waiting", ()) or not holds_every_token(scheduler):
        return sys.maxsize
    if not fits(scheduler, head, _view(head).num_tokens, num_spare):
        return 0
    needs = accumulate(view.num_tokens // scheduler.block_size + 1 for view in waiting)
    num_fitting = sum(need <= num_spare for need in needs)
    return sys.maxsize if num_fitting == len(waiting) else max(num_fitting, 1)


def _first_waiting(scheduler: Any) -> tuple[RequestView, ...]:
    """The requests that vLLM would admit next, each without what the prefix cache holds."""
    heads = chain(_heads(_blocked_queue(scheduler)), _heads(scheduler.waiting))
    views = []
    for request in islice(heads, MAX_WAITING_SEEN):
        view = _view(request)
        if not view.num_computed_tokens:
            cached = num_cached_tokens(scheduler, request)
            view = RequestView(view.request_id, view.num_tokens - cached, cached)
        views.append(view)
    return tuple(views)


def _heads(queue: Any) -> Iterable[Any]:
    """The first requests of a queue. Iterating a priority queue copies it: peek."""
    if isinstance(queue, deque) or not queue:
        return islice(queue, MAX_WAITING_SEEN)
    return (queue.peek_request(),)


def _view(request: Any) -> RequestView:
    computed = request.num_computed_tokens
    num_tokens = request.num_tokens_with_spec + request.num_output_placeholders - computed
    return RequestView(request.request_id, max(num_tokens, 1), computed)


def _blocked_queue(scheduler: Any) -> Any:
    """vLLM's second waiting queue: requests that hold KV blocks or were skipped."""
    name = "kv_holding_waiting" if hasattr(scheduler, "kv_holding_waiting") else "skipped_waiting"
    return getattr(scheduler, name)


def _num_seats(scheduler: Any) -> int:
    """How many more requests vLLM would let run."""
    taken = len(scheduler.running) + int(scheduler.num_waiting_for_streaming_input)
    return max(admission_limit(scheduler) - taken, 0)


def admission_attribute(scheduler: Any) -> str:
    """Name of vLLM's limit on running requests; newer versions keep one for admission alone."""
    newer = "max_num_active_reqs"
    return newer if hasattr(scheduler, newer) else "max_num_running_reqs"


def admission_limit(scheduler: Any) -> int:
    """How many requests vLLM lets run at once."""
    return int(getattr(scheduler, admission_attribute(scheduler)))
