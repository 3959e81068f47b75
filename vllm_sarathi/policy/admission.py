"""How many waiting requests may be admitted, so that those that run keep what they were promised.

They were promised KV blocks to grow into, and a pace.
"""

import sys
from collections.abc import Callable
from itertools import accumulate
from math import inf

from vllm_sarathi.policy.company import Company
from vllm_sarathi.policy.state import RequestView, SchedulerState
from vllm_sarathi.policy.step import Backlog, BatchLimit

RESERVED_BLOCKS = 4
"""Free KV blocks kept for the growth of each running request when another is admitted: an
admission that is soon followed by a preemption computes a prefill twice. Requests that end make
room for those that grow, so that little is needed. Measured where the cache binds (A100, room for
40,000 tokens, outputs of 1,000 tokens on average, heavy-tailed, two objectives): goodput 0.79 and
90 preemptions of 300 requests; with none 0.75 and 570, with twice as many 0.77 and 20, with a
quarter of the growth that is expected of all, mean and two standard deviations, 0.70 and none.
All of that in a cache of 60,000 tokens, which does not bind, leaves 0.68 instead of 1."""

MAX_RESERVED_SHARE = 1 / 16
"""Share of the KV cache that is kept at most, so that a cache of a few blocks is used as vLLM
would: 256 running requests reach it in a cache of 16,384 blocks."""


def backlog(state: SchedulerState, keeps_pace: Callable[[Company], bool]) -> Backlog:
    """The waiting requests, and how many of them may be admitted.

    Args:
        state: who runs and who waits.
        keeps_pace: whether those that run together keep the tightest pace among them.
    """
    num_spare = _num_spare_blocks(state, state.waiting[0] if state.waiting else None)
    keeps_blocks = state.num_decodes or (state.is_by_rank and state.prefills)
    num_fitting = _num_fitting(state) if keeps_blocks else sys.maxsize
    num_joining = _num_joining(state, keeps_pace) if num_fitting else sys.maxsize
    admission_blocked_by = None
    if num_fitting == 0:
        admission_blocked_by = BatchLimit.KV_BLOCKS
    elif num_joining == 0:
        admission_blocked_by = BatchLimit.PACE
    return Backlog(
        shown=state.waiting,
        num_waiting=state.num_waiting,
        max_new=min(num_fitting, num_joining, state.num_seqs_left),
        max_new_tokens=max(num_spare, 0) * state.kv.block_size,
        admission_blocked_by=admission_blocked_by,
    )


def _num_joining(state: SchedulerState, keeps_pace: Callable[[Company], bool]) -> int:
    """How many of the waiting requests may join those that run; one may always run.

    Those that run must fit the tightest pace among them when their contexts have grown, with time
    for prefill where the one that joins was spared its own. Those beyond the view wait for the next
    step, unless nobody has a pace.
    """
    company = state.company
    if company is None or state.lower_priority:
        return sys.maxsize
    for num_joining, request in enumerate(state.waiting):
        num_prompt = request.num_tokens + request.num_computed_tokens
        is_sure = company.admits_any
        company = company.joined_by(num_prompt, request.pace_s, request.num_spared)
        if not (is_sure or keeps_pace(company)):
            return num_joining
    return sys.maxsize if company.pace_s == inf else len(state.waiting)


def _num_spare_blocks(state: SchedulerState, request: RequestView | None) -> int:
    """Free KV blocks beyond those kept for running requests, if this request is admitted next.

    The prompts that run shall be finished, and all that run still grow for a while, but not
    at the expense of a more important request. Prompts that make way for this one keep nothing
    from it either: they get on once those before them have ended, and left their blocks.
    """
    num_tokens = sum(
        prompt.num_tokens
        for prompt in state.prefills
        if prompt.request_id not in state.lower_priority
        and (request is None or prompt.rank <= request.rank)
    )
    num_grown = RESERVED_BLOCKS * (state.kv.num_running - len(state.lower_priority))
    num_kept = min(num_grown, int(MAX_RESERVED_SHARE * state.kv.num_blocks))
    return state.kv.num_free_blocks - state.kv.num_blocks_for(num_tokens) - num_kept


def _num_fitting(state: SchedulerState) -> int:
    """How many waiting requests find KV blocks for all of their prefill.

    Those beyond the view are admitted where there is room for a whole batch besides. No bound
    where the need of the first cannot be told.
    """
    needed = state.kv.waiting_blocks
    if not needed:
        return sys.maxsize
    num_left = sys.maxsize
    for index, total in enumerate(accumulate(needed)):
        num_left = min(num_left, _num_spare_blocks(state, state.waiting[index]) - total)
        if num_left < 0:
            return index
    batch = state.kv.num_blocks_for(state.max_num_scheduled_tokens)
    return sys.maxsize if num_left >= batch else len(needed)
