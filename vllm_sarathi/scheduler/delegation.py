"""Sets what vLLM's own ``schedule()`` reads to a plan, and restores it. Decides nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vllm_sarathi.policy.step import RunningOrder, StepPlan
from vllm_sarathi.scheduler.snapshot import Snapshot
from vllm_sarathi.scheduler.vllm_versions import admission_attribute, long_prefill_overrides


@contextmanager
def applied(scheduler: Any, plan: StepPlan, snapshot: Snapshot) -> Iterator[None]:
    """Let vLLM's ``schedule()``, called inside the block, follow a plan.

    Without prefill the tokens are not restricted: decodes take what they need.
    The queues are whole afterwards, also after an exception.

    Args:
        scheduler: a vLLM ``Scheduler``.
        plan: the next batch.
        snapshot: what the plan was made from.
    """
    if plan.max_new_prefills is None and not plan.skipped_decodes:
        yield
        return
    running = scheduler.running
    visible = visible_requests(running, plan, snapshot.prefills)
    tokens = scheduler.max_num_scheduled_tokens
    if plan.chunks:
        tokens = min(plan.token_budget, tokens)
    limits = {
        "max_num_scheduled_tokens": tokens,
        admission_attribute(scheduler): _admission_limit(scheduler, plan, len(visible)),
    }
    shown = None if visible is running else frozenset(visible)
    scheduler.running = visible
    try:
        with overridden(scheduler, limits), chunks_limited(scheduler, plan.max_chunk):
            yield
    finally:
        if shown is not None:
            scheduler.running = restored(running, shown, scheduler.running)


def visible_requests(running: list[Any], plan: StepPlan, prefills: list[Any]) -> list[Any]:
    """The running requests that vLLM sees in a step, in the order in which it serves them.

    Args:
        running: vLLM's list.
        plan: the next batch.
        prefills: those of the list with prefill left, in the order of service.

    Returns:
        The list itself where it stays as it is.
    """
    visible = running
    if plan.order is not RunningOrder.UNCHANGED:
        decodes = [request for request in running if not request.is_prefill_chunk]
        if plan.order is RunningOrder.DECODES_FIRST:
            kept = [r for r in prefills if r.request_id not in plan.overtaken]
            visible = [*decodes, *kept]
        else:
            visible = [*decodes[:-1], *running[running.index(decodes[-1]) :]]
    if plan.skipped_decodes:
        skipped = frozenset(plan.skipped_decodes)
        visible = [request for request in visible if request not in skipped]
    return visible


def _admission_limit(scheduler: Any, plan: StepPlan, num_visible: int) -> int:
    """How many requests vLLM may let run while it sees so many: hidden ones count too."""
    limit = int(getattr(scheduler, admission_attribute(scheduler)))
    limit += num_visible - len(scheduler.running)
    if plan.max_new_prefills is None:
        return limit
    taken = num_visible + int(scheduler.num_waiting_for_streaming_input)
    return min(limit, taken + plan.max_new_prefills)


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
def chunks_limited(scheduler: Any, max_chunk: int) -> Iterator[None]:
    """Let no request have more prefill tokens of a batch than that."""
    if max_chunk >= scheduler.max_num_scheduled_tokens:
        yield
        return
    config = scheduler.scheduler_config
    most = min(config.long_prefill_token_threshold or max_chunk, max_chunk)
    exactly = long_prefill_overrides(scheduler)
    with (
        overridden(config, {"long_prefill_token_threshold": most}),
        overridden(scheduler, exactly),
    ):
        yield


def restored(running: list[Any], shown: frozenset[Any], scheduled: list[Any]) -> list[Any]:
    """vLLM's list in its own order after a step that saw another.

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
