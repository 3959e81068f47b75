"""Reads vLLM's queues into a step view. Touches O(running) requests, none that wait."""

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vllm_sarathi.step import RequestView, StepView

MAX_WAITING_SEEN = 4
"""Waiting requests that a view shows; a batch seldom admits more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A step view, and the vLLM requests behind it.

    Attributes:
        view: what the batch builder sees.
        prefills: running requests with prefill left, in vLLM's order.
        decodes_first: whether vLLM's order has no prefill before a decode.
    """

    view: StepView
    prefills: list[Any]
    decodes_first: bool


def take_snapshot(scheduler: Any) -> Snapshot:
    """Read the requests that vLLM's ``schedule()`` could run now.

    Args:
        scheduler: a vLLM ``Scheduler`` between two calls of ``schedule()``.
    """
    running = scheduler.running
    next_step = scheduler.current_step + 1
    prefills: list[Any] = []
    num_decodes = num_decode_tokens = context = 0
    decodes_first = True
    for request in running:
        if request.is_prefill_chunk:
            prefills.append(request)
            continue
        decodes_first = decodes_first and not prefills
        computed = request.num_computed_tokens
        placeholders = request.num_output_placeholders
        num_tokens = request.num_tokens_with_spec + placeholders - computed
        if num_tokens <= 0 or next_step < request.next_decode_eligible_step:
            continue  # its last token is still in flight
        if placeholders and computed + 2 - placeholders >= _max_total_tokens(request):
            continue  # the step in flight reaches its limit
        num_decodes += 1
        num_decode_tokens += num_tokens
        context += computed
    seats = admission_limit(scheduler) - len(running) - scheduler.num_waiting_for_streaming_input
    view = StepView(
        max_num_scheduled_tokens=scheduler.max_num_scheduled_tokens,
        num_decodes=num_decodes,
        num_decode_tokens=num_decode_tokens,
        decode_context_tokens=context,
        prefills=tuple(map(_view, prefills)),
        waiting=_first_waiting(scheduler),
        num_waiting=scheduler.get_request_counts()[1],
        max_new_prefills=max(seats, 0),
    )
    return Snapshot(view, prefills, decodes_first)


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
