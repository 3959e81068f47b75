"""Which free KV blocks running requests keep, and whom the rest admits."""

import sys
from itertools import accumulate

from vllm_sarathi.policy.state import SchedulerState
from vllm_sarathi.policy.step import Backlog

RESERVED_BLOCKS = 4
"""Free KV blocks kept for the growth of each running request when another is admitted: an
admission that is soon followed by a preemption computes a prefill twice. Chosen on the H100
arxiv case of benchmarks/results/capacity.md, where fewer preempted and more admitted less."""


MAX_RESERVED_SHARE = 1 / 16
"""Share of the KV cache that is kept at most: where a few requests fill it, as in vLLM's own
tests, blocks kept idle cost more than preemptions, and vLLM keeps none."""


def backlog(state: SchedulerState) -> Backlog:
    """The waiting requests, and how many of them may be admitted.

    The prompts that run shall be finished, and all that run still grow for a while, but not
    at the expense of a more important request. Without either, vLLM admits whom it would.
    """
    num_spare = _num_spare_blocks(state)
    keeps = state.num_decodes or (state.is_by_deadline and state.prefills)
    num_fitting = _num_fitting(state, num_spare) if keeps else sys.maxsize
    return Backlog(
        shown=state.waiting,
        num_waiting=state.num_waiting,
        max_new=min(num_fitting, state.num_free_seats),
        max_new_tokens=max(num_spare, 0) * state.kv.block_size,
        is_kv_bound=num_fitting == 0,
    )


def _num_spare_blocks(state: SchedulerState) -> int:
    """Free KV blocks beyond those kept for running requests."""
    num_tokens = sum(
        request.num_tokens
        for request in state.prefills
        if request.request_id not in state.less_important
    )
    num_grown = RESERVED_BLOCKS * (state.kv.num_running - len(state.less_important))
    num_kept = min(num_grown, int(MAX_RESERVED_SHARE * state.kv.num_blocks))
    return state.kv.num_free_blocks - state.kv.num_blocks_for(num_tokens) - num_kept


def _num_fitting(state: SchedulerState, num_spare: int) -> int:
    """How many waiting requests find KV blocks for all of their prefill.

    No bound where the first one's need cannot be told, or where all in view fit.
    """
    needed = state.kv.first_waiting_blocks
    if needed is None:
        return sys.maxsize
    if needed > num_spare:
        return 0
    sizes = (state.kv.num_blocks_for(request.num_tokens) for request in state.waiting)
    num_fitting = sum(total <= num_spare for total in accumulate(sizes))
    return sys.maxsize if num_fitting == len(state.waiting) else max(num_fitting, 1)
