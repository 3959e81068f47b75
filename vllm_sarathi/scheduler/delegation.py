"""Sets what vLLM's own ``schedule()`` reads to a plan, and restores it.

A token budget makes the batch, for vLLM serves its list of running requests in
order until the budget is used up.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.request_queue import SchedulingPolicy

from vllm_sarathi.policy.step import StepPlan
from vllm_sarathi.scheduler.kv_blocks import num_tokens_that_fit
from vllm_sarathi.scheduler.snapshot import Snapshot, admission_attribute, admission_limit


@contextmanager
def applied(engine: Any, plan: StepPlan, snapshot: Snapshot) -> Iterator[None]:
    """Let vLLM's ``schedule()``, called inside the block, follow a plan.

    Without prefill the tokens are not restricted: decodes take what they need.
    The queues are whole afterwards, also after an exception.

    Args:
        engine: a vLLM ``Scheduler``.
        plan: the next batch.
        snapshot: what the plan was made from.
    """
    left_out = snapshot.left_out(plan)
    admits_less = bool(plan.chunks) or snapshot.view.is_kv_bound
    if not admits_less and not left_out:
        yield
        return
    running = engine.running
    visible, tokens = running, engine.max_num_scheduled_tokens
    if plan.chunks:
        visible, tokens = in_order(engine, plan, snapshot)
    if left_out:
        later = frozenset(left_out)
        visible = [request for request in visible if request not in later]
    most = admission_limit(engine) - len(running) + len(visible)
    if admits_less:
        taken = len(visible) + engine.num_waiting_for_streaming_input
        most = min(most, taken + plan.max_new_prefills)
    limits = {
        "max_num_scheduled_tokens": min(tokens, engine.max_num_scheduled_tokens),
        admission_attribute(engine): most,
    }
    shown = None if visible is running else frozenset(visible)
    engine.running = visible
    try:
        with overridden(engine, limits), chunks_limited(engine, plan.max_chunk):
            yield
    finally:
        if shown is not None:
            engine.running = merge(running, shown, engine.running)


@contextmanager
def overridden(owner: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Let attributes have other values inside the block."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def chunks_limited(engine: Any, max_chunk: int) -> Iterator[None]:
    """Let no request have more prefill tokens of a batch than that."""
    if max_chunk >= engine.max_num_scheduled_tokens:
        yield
        return
    config, adaptive = engine.scheduler_config, "adaptive_long_prefill_threshold"
    most = min(config.long_prefill_token_threshold or max_chunk, max_chunk)
    exactly = {adaptive: False} if hasattr(engine, adaptive) else {}
    with overridden(config, {"long_prefill_token_threshold": most}), overridden(engine, exactly):
        yield


def in_order(engine: Any, plan: StepPlan, snapshot: Snapshot) -> tuple[list[Any], int]:
    """The running requests that a plan serves, decodes before prefills, and a token budget.

    First come, first served, vLLM preempts from the end of its list, and takes
    for granted that the end is not scheduled yet. So the budget keeps to what
    surely fits into free memory. Where that leaves nothing for prefill, the
    order stays, and a prefill in front of a decode sits the step out instead,
    but for one with an adapter: vLLM counts adapters over those that it sees.
    """
    running, tokens = engine.running, plan.token_budget
    overtaken = snapshot.overtaken(plan)
    if snapshot.is_in_order and not overtaken:
        return running, tokens
    if engine.policy != SchedulingPolicy.PRIORITY:
        num_decodes = 0 if plan.decodes_wait else snapshot.view.num_decodes
        num_requests = num_decodes + len(plan.chunks)
        tokens = min(tokens, num_tokens_that_fit(engine, num_requests))
    decodes = [request for request in running if not request.is_prefill_chunk]
    if tokens > plan.num_decode_tokens:
        prefills = [request for request in snapshot.prefills if request not in overtaken]
        return [*decodes, *prefills], tokens
    if engine.lora_config or not decodes:
        return running, plan.token_budget
    rest = running[running.index(decodes[-1]) :]
    return [*decodes[:-1], *rest], plan.token_budget


def merge(running: list[Any], shown: frozenset[Any], scheduled: list[Any]) -> list[Any]:
    """Bring vLLM's list back to order after a step that saw another.

    Args:
        running: the list before the step.
        shown: those of it that the step saw.
        scheduled: the list after the step: shown ones less those preempted,
            plus those admitted.

    Returns:
        Every survivor in its old place, then those admitted.
    """
    kept = frozenset(scheduled)
    survivors = [request for request in running if request in kept or request not in shown]
    return survivors + [request for request in scheduled if request not in shown]
