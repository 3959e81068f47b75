"""How vLLM's list of running requests stands in a step.

vLLM serves it from the front until the token budget is used up. First come, first served,
it preempts from the end, and takes for granted that the end is not scheduled yet.
"""

from dataclasses import replace

from vllm_sarathi.policy.state import SchedulerState
from vllm_sarathi.policy.step import RunningOrder, StepPlan


def arranged(plan: StepPlan, state: SchedulerState, num_decodes: int) -> StepPlan:
    """The plan with the order in which vLLM serves it.

    Decodes go before prefills only as far as the batch surely fits into free memory, so that
    the victim of a preemption stays vLLM's. Where that leaves nothing for prefill, the order
    stays, and prefills in front of a decode sit the step out instead, but for those with an
    adapter: vLLM counts adapters over those that it sees.

    Args:
        plan: the batch.
        state: what it was made from.
        num_decodes: decodes in it.
    """
    overtaken = _overtaken(plan, state)
    if state.is_in_order and not overtaken:
        return plan
    token_budget = plan.token_budget
    if not state.has_priorities:
        num_requests = num_decodes + len(plan.chunks)
        token_budget = min(token_budget, state.kv.num_sure_tokens(num_requests))
    if token_budget > plan.num_decode_tokens:
        order = RunningOrder.DECODES_FIRST
        return replace(plan, token_budget=token_budget, order=order, overtaken=overtaken)
    if state.has_adapters or not state.num_decodes:
        return plan
    return replace(plan, order=RunningOrder.LAST_DECODE_FIRST)


def _overtaken(plan: StepPlan, state: SchedulerState) -> frozenset[str]:
    """Running prefills that the plan leaves out for requests that still wait."""
    chosen = {chunk.request_id for chunk in plan.chunks}
    running = {request.request_id for request in state.prefills}
    return frozenset() if chosen <= running else frozenset(running - chosen)
