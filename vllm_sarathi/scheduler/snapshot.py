"""Reads vLLM's queues. Touches O(running) requests and a few that wait; decides nothing."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vllm.v1.core.sched.request_queue import SchedulingPolicy

from vllm_sarathi.policy.company import Company
from vllm_sarathi.policy.state import (
    LAST,
    Decodes,
    KvRoom,
    Outlook,
    RequestView,
    SchedulerState,
)
from vllm_sarathi.scheduler.kv_blocks import (
    holds_every_token,
    num_free_blocks,
    num_shared_blocks,
    num_spared_tokens,
)
from vllm_sarathi.scheduler.ordered_queue import OrderedQueue
from vllm_sarathi.scheduler.promises import Promises
from vllm_sarathi.scheduler.vllm_versions import (
    admission_attribute,
    max_chunk,
    passed_over,
    second_waiting_queue,
)

MAX_WAITING_SHOWN = 4
"""Waiting requests that are looked at; a batch seldom admits more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read, and the vLLM requests behind it.

    Attributes:
        state: the facts.
        prefills: running requests with prefill left, in the order of service.
        first_waiting: the request that vLLM would admit next; None if none waits.
    """

    state: SchedulerState
    prefills: list[Any]
    first_waiting: Any


def take_snapshot(
    scheduler: Any, outlook: Outlook, promises: Promises, company: Company | None = None
) -> Snapshot:
    """Read the requests that vLLM's ``schedule()`` could run now.

    Args:
        scheduler: a vLLM ``Scheduler`` between two calls of ``schedule()``.
        outlook: what the steps before mean for the next one.
        promises: what the requests were promised.
        company: what those that run share; None where nobody asks: no token is followed, nobody
            waits or no seat is left.
    """
    running = scheduler.running
    ranks = promises if _serves_by_rank(scheduler, outlook, promises) else None
    decodes, in_flight, prefilling = _read_running(scheduler)
    prefills, prefill_views = _in_order_of_service(prefilling, ranks)
    num_decodes = len(running) - len(prefills)
    num_left = num_seqs_left(scheduler)
    # At max_num_seqs the first one tells whether there are KV blocks for it; no other matters.
    most = MAX_WAITING_SHOWN if num_left or ranks else 1
    shown = _read_waiting(scheduler, promises, ranks is not None, most)
    has_prefill = bool(prefills or (num_left and shown))
    state = SchedulerState(
        max_num_scheduled_tokens=scheduler.max_num_scheduled_tokens,
        max_chunk=max_chunk(scheduler),
        num_seqs_left=num_left,
        kv=_read_kv_room(scheduler, shown),
        decodes=decodes,
        num_decodes=num_decodes,
        prefills=prefill_views,
        waiting=tuple(view for view, _ in shown),
        num_waiting=scheduler.get_request_counts()[1],
        is_by_rank=ranks is not None,
        due=promises.due(decodes.requests, in_flight, outlook, has_prefill),
        company=company,
        is_in_order=prefills == running[num_decodes:],
        has_priorities=scheduler.policy == SchedulingPolicy.PRIORITY,
        lower_priority=_lower_priority(scheduler),
        has_adapters=bool(scheduler.lora_config),
        outlook=outlook,
    )
    return Snapshot(state, prefills, shown[0][1] if shown else None)


def _serves_by_rank(scheduler: Any, outlook: Outlook, promises: Promises) -> bool:
    """Whether running prompts make way for others.

    Not where vLLM may pass over those that wait: it counts adapters, and the step before may
    not have come as planned. Priorities are vLLM's matter.
    """
    has_order = promises.order is not None and outlook.is_as_planned
    return has_order and not scheduler.lora_config and scheduler.policy == SchedulingPolicy.FCFS


def _read_running(scheduler: Any) -> tuple[Decodes, list[Any], list[Any]]:
    """Decodes that vLLM can schedule now, those in flight with more tokens to come, and prefills.

    One pass: there may be a thousand.
    """
    ready, sizes, contexts = list[Any](), list[int](), list[int]()
    in_flight, prefills = list[Any](), list[Any]()
    next_step, longest = scheduler.current_step + 1, scheduler.max_model_len - 1
    for request in scheduler.running:
        if request.is_prefill_chunk:
            prefills.append(request)
            continue
        computed = request.num_computed_tokens
        placeholders = request.num_output_placeholders
        num_tokens = request.num_tokens_with_spec + placeholders - computed
        if (
            num_tokens <= 0  # its last token is still in flight
            or next_step < request.next_decode_eligible_step
            or computed >= longest  # the last token that the model can make is in flight
            or (  # the step in flight reaches its limit
                placeholders
                and computed + 2 - placeholders >= request.num_prompt_tokens + request.max_tokens
            )
        ):
            if request.num_output_tokens + placeholders < request.max_tokens:
                in_flight.append(request)
            continue
        ready.append(request)
        sizes.append(num_tokens)
        contexts.append(computed)
    return Decodes(ready, sizes, contexts), in_flight, prefills


def _in_order_of_service(
    prefilling: Iterable[Any], ranks: Promises | None
) -> tuple[list[Any], tuple[RequestView, ...]]:
    """Running requests with prefill left in the order of service, and a view of each."""
    views = {request: _view(request, ranks, request.num_computed_tokens) for request in prefilling}
    prefills = sorted(views, key=lambda request: views[request].rank)
    return prefills, tuple(views[request] for request in prefills)


def _read_waiting(
    scheduler: Any, promises: Promises, is_by_rank: bool, most: int
) -> list[tuple[RequestView, Any]]:
    """The requests that vLLM would admit next, so many at most, and a view of each.

    They stand as in its queues, though ranks change with load and with the prefix cache. Nobody
    makes way for those that it passed over, or keeps their pace.
    """
    first, skipped = tuple(_heads(second_waiting_queue(scheduler), most)), passed_over(scheduler)
    shown = list[tuple[RequestView, Any]]()
    for request in (*first, *_heads(scheduler.waiting, most)):
        num_spared = num_spared_tokens(scheduler, request)
        view = _view(request, promises if is_by_rank else None, num_spared)
        if request not in first and request not in skipped:
            num_spared = 0 if request.num_output_tokens else num_spared
            view = view._replace(pace_s=promises.pace_s(request), num_spared=num_spared)
        elif is_by_rank:
            view = view._replace(rank=LAST)
        shown.append((view, request))
    return sorted(shown, key=_is_last)[:most]


def _is_last(shown: tuple[RequestView, Any]) -> bool:
    return shown[0].rank == LAST


def _read_kv_room(scheduler: Any, shown: Sequence[tuple[RequestView, Any]]) -> KvRoom:
    return KvRoom(
        num_blocks=scheduler.kv_cache_config.num_blocks,
        num_free_blocks=num_free_blocks(scheduler),
        num_running=len(scheduler.running),
        block_size=scheduler.block_size,
        num_groups=len(scheduler.kv_cache_config.kv_cache_groups),
        num_lookahead_tokens=scheduler.num_lookahead_tokens,
        waiting_blocks=_waiting_blocks(scheduler, [request for _, request in shown]),
    )


def _waiting_blocks(scheduler: Any, shown: Iterable[Any]) -> tuple[int, ...] | None:
    """KV blocks that each waiting request in view takes.

    None where vLLM would pass the first one over, or where others wait that hold their blocks
    already.
    """
    if not scheduler.waiting or second_waiting_queue(scheduler) or scheduler.lora_config:
        return None
    first = scheduler.waiting.peek_request()
    if first in passed_over(scheduler) or not holds_every_token(scheduler):
        return None
    block_size = int(scheduler.block_size)
    return tuple(
        -(-_num_left(request, request.num_computed_tokens) // block_size)
        - num_shared_blocks(scheduler, request)
        for request in shown
    )


def _lower_priority(scheduler: Any) -> frozenset[str]:
    """Running requests that vLLM preempts before the first waiting one, once that one runs."""
    if scheduler.policy != SchedulingPolicy.PRIORITY or not scheduler.waiting:
        return frozenset()
    first = scheduler.waiting.peek_request()
    return frozenset(
        request.request_id for request in scheduler.running if first.priority < request.priority
    )


def _heads(queue: Any, most: int) -> Iterable[Any]:
    """The first requests of a queue. Iterating a priority queue copies it: peek."""
    if not queue:
        return ()
    if most > 1 and isinstance(queue, deque | OrderedQueue):
        return islice(queue, most)
    return (queue.peek_request(),)


def _view(request: Any, ranks: Promises | None, num_before: int) -> RequestView:
    """A request with prefill left, after so many tokens that need none."""
    num_tokens = _num_left(request, num_before)
    if ranks is None:
        return RequestView(request.request_id, num_tokens, num_before)
    return RequestView(request.request_id, num_tokens, num_before, ranks.rank(request, num_tokens))


def _num_left(request: Any, num_before: int) -> int:
    """Prefill tokens that a request has left, after so many that need none."""
    num_tokens = request.num_tokens_with_spec + request.num_output_placeholders
    return max(int(num_tokens) - num_before, 1)


def num_seqs_left(scheduler: Any) -> int:
    """How many more requests vLLM would let run."""
    taken = len(scheduler.running) + int(scheduler.num_waiting_for_streaming_input)
    return max(int(getattr(scheduler, admission_attribute(scheduler))) - taken, 0)
