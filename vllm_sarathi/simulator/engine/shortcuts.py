"""Shortcuts through vLLM's bookkeeping for one scheduler instance: same results, less time.

Three quarters of a simulated step would go into work that a run does not need
(messages to workers) or that is known to change nothing (slots for a token that fits
into the last KV block). Each shortcut replaces a method that is vLLM's own, on this
instance only; what a scheduler class overrides is left alone. Tests run the same load
with and without them and compare every batch.
"""

from collections.abc import Callable
from functools import cache
from typing import Any


def install(scheduler: Any) -> None:
    """Install every shortcut that fits the scheduler."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    def is_from(base: type, name: str) -> bool:
        method = getattr(base, name, None)
        return method is not None and getattr(type(scheduler), name, None) is method

    if is_from(Scheduler, "_make_cached_request_data"):
        scheduler._make_cached_request_data = _cached_request_data
    if is_from(Scheduler, "_reserve_prefill_lookahead") and not scheduler.num_prefill_lookahead:
        scheduler._reserve_prefill_lookahead = _all_new_tokens
    one_by_one = not scheduler.num_spec_tokens
    if one_by_one and is_from(Scheduler, "_update_request_with_output"):
        scheduler._update_request_with_output = _append_token(scheduler)
    elif one_by_one and is_from(AsyncScheduler, "_update_request_with_output"):
        scheduler._update_request_with_output = _append_token_async(scheduler)
    if hasattr(scheduler.structured_output_manager, "accept_tokens"):
        scheduler.structured_output_manager.accept_tokens = lambda request, tokens: True
    _shorten_allocation(scheduler.kv_cache_manager)


def _all_new_tokens(request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
    return num_new_tokens


@cache
def request_class() -> type:
    """vLLM's ``Request`` for text without grammar: what is always so is not asked again."""
    from vllm.v1.request import Request

    class TextRequest(Request):  # type: ignore[misc]  # vLLM's imports are skipped
        has_encoder_inputs = False
        use_structured_output = False
        num_encoder_inputs = 0

        def take_events(self) -> None:
            return None

    return TextRequest


def _cached_request_data(
    running: list[Any], resumed: list[Any], num_scheduled: Any, drafts: Any, new_blocks: Any
) -> Any:
    """Only what a scheduler may read of the message to workers: who, and how far."""
    from vllm.v1.core.sched.output import CachedRequestData

    requests = [*running, *resumed]
    message = CachedRequestData.make_empty()
    message.req_ids = [request.request_id for request in requests]
    message.resumed_req_ids = {request.request_id for request in resumed}
    message.num_computed_tokens = [request.num_computed_tokens for request in requests]
    return message


def _append_token(scheduler: Any) -> Callable[..., tuple[list[int], bool]]:
    """``Scheduler._update_request_with_output`` where only length stops a request."""
    from vllm.v1.request import RequestStatus

    max_model_len, capped = scheduler.max_model_len, RequestStatus.FINISHED_LENGTH_CAPPED

    def append(
        request: Any, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        output, everything = request._output_token_ids, request._all_token_ids
        output.append(new_token_ids[0])
        everything.append(new_token_ids[0])
        if request._block_hasher is not None:
            request.update_block_hashes()
        if not is_stale and request.num_output_placeholders:
            request.num_output_placeholders -= 1
        if len(output) >= request.max_tokens or len(everything) >= max_model_len:
            request.status = capped
            return new_token_ids, True
        return new_token_ids, False

    return append


def _append_token_async(scheduler: Any) -> Callable[..., tuple[list[int], bool]]:
    """``AsyncScheduler._update_request_with_output`` of versions that have one, likewise."""
    from vllm.v1.request import RequestStatus

    append, manager = _append_token(scheduler), scheduler.kv_cache_manager
    running, caching = RequestStatus.RUNNING, manager.enable_caching

    def append_async(
        request: Any, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        was_running = request.status is running
        result = append(request, new_token_ids, is_stale)
        if caching and was_running:
            done = request.num_computed_tokens - request.num_output_placeholders
            manager.cache_blocks(request, done)
        return result

    return append_async


def _shorten_allocation(manager: Any) -> None:
    """Skip ``allocate_slots`` for a running request whose last KV block has room.

    It would free, allocate and cache nothing, unless a block fills up.
    """
    from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

    groups = manager.coordinator.single_type_managers
    if len(groups) != 1 or type(groups[0]) is not FullAttentionManager:
        return
    (group,) = groups
    allocate, nothing, size = (
        manager.allocate_slots,
        manager.empty_kv_cache_blocks,
        group.block_size,
    )
    blocks_of, num_cached = group.req_to_blocks, group.num_cached_block
    caching = manager.enable_caching
    max_model_len = manager.max_model_len

    def allocate_slots(request: Any, num_new_tokens: int, *args: Any, **options: Any) -> Any:
        # The loop over running requests passes nothing else.
        if args or len(options) != 1 or num_new_tokens < 1:
            return allocate(request, num_new_tokens, *args, **options)
        name = request.request_id
        total = request.num_computed_tokens + num_new_tokens
        needed = total + options.get("num_lookahead_tokens", size)
        blocks = blocks_of.get(name)
        if blocks is None or min(needed, max_model_len) > len(blocks) * size:
            return allocate(request, num_new_tokens, *args, **options)
        if caching and min(total, request.num_tokens) // size > num_cached.get(name, 0):
            return allocate(request, num_new_tokens, *args, **options)
        return nothing

    manager.allocate_slots = allocate_slots
