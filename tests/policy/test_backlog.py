"""The waiting requests: how many may be admitted, and what those beyond the view are taken for."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.lined_up import leave_free
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import SarathiScheduler
from vllm_sarathi.policy.admission import MAX_RESERVED_SHARE, RESERVED_BLOCKS
from vllm_sarathi.policy.admission import backlog as admitted
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import KvRoom, RequestView, SchedulerState
from vllm_sarathi.policy.step import Backlog, BatchLimit
from vllm_sarathi.policy.step_time import StepTimeModel

BLOCK = 16
NUM_BLOCKS = 320


def views(lengths: list[int], prefix: str = "w") -> tuple[RequestView, ...]:
    return tuple(RequestView(f"{prefix}{i}", num) for i, num in enumerate(lengths))


def state(
    num_free: int,
    decodes: int = 0,
    running: tuple[int, ...] = (),
    waiting: tuple[int, ...] = (),
    first: int | None = -1,
    num_left: int = 100,
    **fields: Any,
) -> SchedulerState:
    """Free blocks, decodes, and lengths of prefills; ``first`` has its own blocks unless told."""
    if first == -1:
        first = -(-waiting[0] // BLOCK) if waiting else None
    needed = None if first is None else (first, *(-(-n // BLOCK) for n in waiting[1:]))
    return SchedulerState(
        max_num_scheduled_tokens=2048,
        max_chunk=2048,
        num_seqs_left=num_left,
        kv=KvRoom(NUM_BLOCKS, num_free, decodes + len(running), BLOCK, waiting_blocks=needed),
        num_decodes=decodes,
        prefills=views(list(running), "r"),
        waiting=views(list(waiting)),
        num_waiting=len(waiting),
        **fields,
    )


def backlog(seen: SchedulerState) -> Backlog:
    return admitted(seen, Policy(StepTimeModel()).keeps_pace)


def is_kv_bound(seen: Backlog) -> bool:
    return seen.admission_blocked_by is BatchLimit.KV_BLOCKS


# --- how many may be admitted


def test_where_nothing_runs_that_will_grow_vllm_admits_whom_it_would() -> None:
    seen = backlog(state(num_free=1, waiting=(500, 500)))
    assert (seen.max_new, is_kv_bound(seen)) == (100, False)


def test_a_running_prompt_alone_keeps_blocks_only_where_others_may_overtake_it() -> None:
    bound = [
        backlog(state(40, running=(600,), waiting=(90,), is_by_rank=by_rank)).admission_blocked_by
        for by_rank in (False, True)
    ]
    assert bound == [None, BatchLimit.KV_BLOCKS]


def test_nobody_is_admitted_into_the_blocks_kept_for_growth() -> None:
    kept = 3 * RESERVED_BLOCKS
    assert [backlog(state(kept + n, decodes=3, waiting=(90,))).max_new for n in (5, 6)] == [0, 1]


def test_nobody_is_admitted_into_the_blocks_that_running_prompts_still_need() -> None:
    kept = 2 * RESERVED_BLOCKS + 320 // BLOCK
    seen = [
        backlog(state(kept + n, decodes=1, running=(320,), waiting=(90,))).admission_blocked_by
        for n in (5, 6)
    ]
    assert seen == [BatchLimit.KV_BLOCKS, None]


def test_as_many_are_admitted_as_find_blocks_in_their_order() -> None:
    kept = RESERVED_BLOCKS
    seen = backlog(state(kept + 4, decodes=1, waiting=(32, 32, 17, 1)))
    assert (seen.max_new, is_kv_bound(seen)) == (2, False)


def test_a_first_request_of_unknown_need_keeps_nobody_out() -> None:
    seen = backlog(state(0, decodes=3, waiting=(90, 90), first=None))
    assert (seen.max_new, is_kv_bound(seen)) == (100, False)


def test_a_first_request_whose_prefix_is_shared_needs_only_the_rest() -> None:
    seen = backlog(state(RESERVED_BLOCKS + 1, decodes=1, waiting=(900, 900), first=1))
    assert (seen.max_new, is_kv_bound(seen)) == (1, False)


def test_no_more_are_admitted_than_max_num_seqs_lets_run() -> None:
    assert backlog(state(1000, decodes=3, waiting=(90, 90), num_left=1)).max_new == 1


def test_free_blocks_beyond_those_kept_are_tokens_for_new_prefill() -> None:
    kept = 3 * RESERVED_BLOCKS
    tokens = [backlog(state(kept + n, decodes=3)).max_new_tokens for n in (-5, 0, 7)]
    assert tokens == [0, 0, 7 * BLOCK]


lengths = st.lists(st.integers(1, 200), max_size=4).map(tuple)


@given(
    num_free=st.integers(0, 120),
    decodes=st.integers(0, 5),
    running=lengths,
    waiting=lengths,
    num_left=st.integers(0, 6),
    is_by_rank=st.booleans(),
    shared=st.integers(0, 13),
    is_known=st.booleans(),
)
def test_it_is_as_admitting_one_after_the_other(
    num_free: int,
    decodes: int,
    running: tuple[int, ...],
    waiting: tuple[int, ...],
    num_left: int,
    is_by_rank: bool,
    shared: int,
    is_known: bool,
) -> None:
    first = max(-(-waiting[0] // BLOCK) - shared, 0) if waiting and is_known else None
    seen = backlog(
        state(num_free, decodes, running, waiting, first, num_left, is_by_rank=is_by_rank)
    )
    expected = num_left
    if first is not None and (decodes or (is_by_rank and running)):
        expected = min(num_left, admitted_one_by_one(num_free, decodes, running, waiting, first))
    assert seen.max_new == expected
    assert seen.shown == views(list(waiting))


def admitted_one_by_one(
    num_free: int, decodes: int, running: tuple[int, ...], waiting: tuple[int, ...], first: int
) -> int:
    """The slow twin: each takes its blocks from those that are left.

    Those beyond the view are as large as a batch together.
    """
    grown = sum(RESERVED_BLOCKS for _ in range(decodes + len(running)))
    left = num_free - min(grown, int(MAX_RESERVED_SHARE * NUM_BLOCKS)) - -(-sum(running) // BLOCK)
    needed = [first, *(-(-num_tokens // BLOCK) for num_tokens in waiting[1:])]
    for num_admitted, num_blocks in enumerate(needed):
        left -= num_blocks
        if left < 0:
            return num_admitted
    return sys.maxsize if left >= 2048 // BLOCK else len(needed)


# --- what those beyond the view are taken for


def test_only_those_that_may_be_admitted_are_admissible() -> None:
    assert Backlog(views([5, 6, 7]), 3, max_new=2).admissible == views([5, 6])


def test_an_empty_backlog_is_no_work() -> None:
    nothing = Backlog()
    assert (nothing.mean_tokens, nothing.num_soon, nothing.num_beyond_view) == (0, 0, 0)


def test_without_a_request_in_view_nothing_is_known_of_those_beyond() -> None:
    unseen = Backlog((), num_waiting=9, max_new=9)
    assert (unseen.num_beyond_view, unseen.num_tokens_soon) == (0, 0)


backlogs = st.builds(
    lambda sizes, beyond, max_new, max_tokens: Backlog(
        views(sizes), len(sizes) + beyond, max_new, max_tokens
    ),
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.integers(0, 20),
    st.integers(0, 25),
    st.integers(0, 3000) | st.just(sys.maxsize),
)


@given(backlogs)
def test_beyond_the_view_are_those_admissible_that_are_not_shown(waits: Backlog) -> None:
    queue = [*waits.shown, *[None] * (waits.num_waiting - len(waits.shown))]
    assert waits.num_beyond_view == queue[: waits.max_new].count(None)


@given(backlogs)
def test_soon_come_those_that_start_while_blocks_are_left_if_all_are_of_mean_size(
    waits: Backlog,
) -> None:
    mean = sum(request.num_tokens for request in waits.shown) // len(waits.shown)
    left, expected = waits.max_new_tokens, 0
    for _ in range(min(waits.num_waiting, waits.max_new)):
        if left <= 0:
            break
        left, expected = left - mean, expected + 1
    assert (waits.num_soon, waits.num_tokens_soon) == (expected, expected * mean)


# --- over vLLM's real scheduler


def decoding(num_free: int, **options: Any) -> SchedulerLoop:
    """Three decodes, and so many free blocks beyond those that they keep."""
    budget = {"preset": "stall-free", "token_budget": 512}
    loop = SchedulerLoop(SarathiScheduler, budget, num_blocks=NUM_BLOCKS, **options).with_decodes()
    loop.add("warm", prompt=[5] * 320, max_tokens=1)
    while "warm" in loop.scheduler.requests:
        loop.step()
    loop.batches.clear()
    leave_free(loop, 3 * RESERVED_BLOCKS + num_free)
    return loop


@pytest.mark.parametrize(("order", "num_small"), [("fcfs", 4), ("priority", 1)])
def test_nobody_beyond_the_view_is_admitted_into_the_blocks_kept(
    order: str, num_small: int
) -> None:
    loop = decoding(num_small + 5, scheduling_policy=order)
    for i in range(num_small):
        loop.add(f"small{i}", 8)
    loop.add("large", 200)
    loop.step()
    assert loop.batches == ["D3" + " P8" * num_small]


def test_a_cached_prefix_that_nobody_holds_takes_free_blocks() -> None:
    loop = decoding(13, enable_prefix_caching=True)
    loop.add("first", 20)
    loop.add("cached", prompt=[5] * 330)
    loop.step()
    assert loop.batches == ["D3 P20"]
