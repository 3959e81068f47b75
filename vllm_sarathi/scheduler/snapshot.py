"""Reads vLLM's queues into a step view. Touches O(running) requests, none that wait."""

import sys
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from math import inf
from operator import attrgetter
from typing import Any

from vllm_sarathi.policy.deadlines import PromptDeadlines
from vllm_sarathi.policy.micro_batch import ReadyDecode, cohort
from vllm_sarathi.policy.step import Outlook, RequestView, StepPlan, StepView
from vllm_sarathi.scheduler.deadline_queue import DeadlineQueue
from vllm_sarathi.scheduler.kv_blocks import (
    fits,
    holds_every_token,
    num_cached_tokens,
    num_spare_blocks,
    num_tokens_that_fit,
)

MAX_WAITING_SEEN = 4  # waiting requests that a view shows; a batch seldom admits more


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A step view, and the vLLM requests behind it.

    Attributes:
        view: what the batch builder sees.
        prefills: running requests with prefill left, in the order of service.
        is_in_order: whether vLLM's order is that of service, decodes before prefills.
        decodes: the decodes that the view counts as ready.
        held_back: decodes that leave their place to later micro-batches, in the order
            in which they take theirs.
    """

    view: StepView
    prefills: list[Any]
    is_in_order: bool
    decodes: list[ReadyDecode]
    held_back: tuple[Any, ...]

    def left_out(self, plan: StepPlan) -> tuple[Any, ...]:
        """Decodes that could run and that a plan leaves out."""
        if plan.decodes_wait:
            return tuple(request for _, _, request in self.decodes)
        return self.held_back

    def overtaken(self, plan: StepPlan) -> list[Any]:
        """Running prefills that a plan leaves out for requests that still wait."""
        chosen = {chunk.request_id for chunk in plan.chunks}
        if chosen.issubset(request.request_id for request in self.prefills):
            return []
        return [request for request in self.prefills if request.request_id not in chosen]


def take_snapshot(
    scheduler: Any,
    num_micro_batches: int,
    outlook: Outlook,
    held_back: Sequence[Any],
    deadlines: PromptDeadlines | None = None,
) -> Snapshot:
    """Read the requests that vLLM's ``schedule()`` could run now.

    Args:
        scheduler: a vLLM ``Scheduler`` between two calls of ``schedule()``.
        num_micro_batches: batches over which the decodes are spread evenly.
        outlook: what the steps before mean for the next one.
        held_back: what the last snapshot held back; now it comes first.
        deadlines: the order of prefills; None keeps vLLM's.
    """
    if scheduler.lora_config or not outlook.may_wait:
        deadlines = None  # vLLM counts the adapters that run, and may pass over who waits
    running = scheduler.running
    prefills, left = _in_order_of_service(running, deadlines)
    num_decodes = len(running) - len(prefills)
    num_left = sum(view.num_tokens for view in left)
    ready, later = ready_decodes(running, scheduler.current_step + 1), list[ReadyDecode]()
    if num_micro_batches > 1 and may_hide(scheduler, ready, num_left):
        ready, later = cohort(ready, num_decodes, num_micro_batches, held_back)
    spare_blocks = num_spare_blocks(scheduler, num_left)
    waiting = _first_waiting(scheduler, deadlines)
    may_wait = outlook.may_wait and keeps_waiting_decodes(scheduler)
    may_wait = may_wait and bool(left or waiting) and may_hide(scheduler, ready, num_left)
    is_bound = num_decodes or (deadlines is not None and left)
    num_fitting = _num_fitting(scheduler, waiting, spare_blocks) if is_bound else sys.maxsize
    view = StepView(
        max_num_scheduled_tokens=scheduler.max_num_scheduled_tokens,
        num_decodes=len(ready),
        num_decode_tokens=sum(num_tokens for num_tokens, _, _ in ready),
        decode_context_tokens=sum(context for _, context, _ in ready),
        num_in_flight=num_decodes - len(ready),
        prefills=left,
        waiting=waiting,
        num_waiting=scheduler.get_request_counts()[1],
        max_new_prefills=min(num_fitting, _num_seats(scheduler)),
        max_new_tokens=max(spare_blocks, 0) * scheduler.block_size,
        is_kv_bound=num_fitting == 0,
        outlook=replace(outlook, may_wait=may_wait),
    )
    held = tuple(request for _, _, request in later)
    return Snapshot(view, prefills, prefills == running[num_decodes:], ready, held)


def ready_decodes(running: list[Any], next_step: int) -> list[ReadyDecode]:
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


def may_hide(scheduler: Any, ready: list[ReadyDecode], num_prefill_tokens: int) -> bool:
    """Whether vLLM can do without seeing some decodes in this step.

    It has to see whom it would preempt, and which adapters run.

    Args:
        scheduler: a vLLM ``Scheduler``.
        ready: the decodes.
        num_prefill_tokens: prefill tokens left of running requests.
    """
    if scheduler.lora_config:
        return False
    num_tokens = min(num_prefill_tokens, int(scheduler.max_num_scheduled_tokens))
    num_tokens += sum(num_tokens for num_tokens, _, _ in ready)
    return num_tokens_that_fit(scheduler, len(scheduler.running)) >= num_tokens


def keeps_waiting_decodes(scheduler: Any) -> bool:
    """Whether decodes lose nothing by sitting a step out.

    vLLM's first model runner forgets requests that a step leaves out, and gets all
    their tokens anew when they return; its second one keeps them. Drafts of speculative
    decoding are lost with either.
    """
    keeps = bool(getattr(scheduler, "use_v2_model_runner", False))
    return keeps and not scheduler.num_spec_tokens


def _in_order_of_service(
    running: Iterable[Any], deadlines: PromptDeadlines | None
) -> tuple[list[Any], tuple[RequestView, ...]]:
    """Running requests with prefill left, and what a view shows of them."""
    views = {request: _view(request, deadlines) for request in running if request.is_prefill_chunk}
    prefills = sorted(views, key=lambda request: views[request].due_s)
    return prefills, tuple(views[request] for request in prefills)


def _num_fitting(scheduler: Any, waiting: Sequence[RequestView], num_spare: int) -> int:
    """How many waiting requests find KV blocks for all of their prefill.

    No bound where vLLM would pass the first one over, where others wait that hold their
    blocks already, or where all in the view fit.
    """
    if not scheduler.waiting or _blocked_queue(scheduler) or scheduler.lora_config:
        return sys.maxsize
    head = scheduler.waiting.peek_request()
    if head in _passed_over(scheduler) or not holds_every_token(scheduler):
        return sys.maxsize
    if not fits(scheduler, head, _view(head).num_tokens, num_spare):
        return 0
    needs = accumulate(view.num_tokens // scheduler.block_size + 1 for view in waiting)
    num_fitting = sum(need <= num_spare for need in needs)
    return sys.maxsize if num_fitting == len(waiting) else max(num_fitting, 1)


def _first_waiting(scheduler: Any, deadlines: PromptDeadlines | None) -> tuple[RequestView, ...]:
    """The requests that vLLM would admit next. Nobody makes way for those that it passed over."""
    held, passed_over = tuple(_heads(_blocked_queue(scheduler))), _passed_over(scheduler)
    views = []
    for request in (*held, *_heads(scheduler.waiting)):
        view = waiting_view(scheduler, request, deadlines)
        if deadlines is not None and (request in held or request in passed_over):
            view = view._replace(due_s=inf)
        views.append(view)
    return tuple(sorted(views, key=attrgetter("due_s"))[:MAX_WAITING_SEEN])


def _heads(queue: Any) -> Iterable[Any]:
    """The first requests of a queue. Iterating a priority queue copies it: peek."""
    if isinstance(queue, deque | DeadlineQueue) or not queue:
        return islice(queue, MAX_WAITING_SEEN)
    return (queue.peek_request(),)


def waiting_view(
    scheduler: Any, request: Any, deadlines: PromptDeadlines | None = None
) -> RequestView:
    """A request that waits, without the tokens that the prefix cache holds."""
    num_cached = 0 if request.num_computed_tokens else num_cached_tokens(scheduler, request)
    return _view(request, deadlines, num_cached)


def _view(
    request: Any, deadlines: PromptDeadlines | None = None, num_cached: int = 0
) -> RequestView:
    computed = request.num_computed_tokens + num_cached
    left = request.num_tokens_with_spec + request.num_output_placeholders - computed
    num_tokens, has_begun, due_s = max(left, 1), bool(request.num_output_tokens), 0.0
    if deadlines is not None:
        due_s = deadlines.due_s(request.arrival_time, num_tokens, has_begun)
    return RequestView(request.request_id, num_tokens, computed, due_s)


def _passed_over(scheduler: Any) -> Collection[Any]:
    """Requests that vLLM could not admit when it last tried, in versions that keep them apart."""
    return getattr(scheduler, "deferred_waiting", ())


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
