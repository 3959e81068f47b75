"""Those that run keep the KV blocks and the pace that they were promised."""

from dataclasses import replace
from math import inf

import pytest

from vllm_sarathi.policy.admission import MAX_RESERVED_SHARE, RESERVED_BLOCKS, backlog
from vllm_sarathi.policy.company import Company
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import KvRoom, RequestView, SchedulerState
from vllm_sarathi.policy.step import BatchLimit
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork


def state(num_blocks: int, num_free: int, num_running: int, num_tokens: int) -> SchedulerState:
    """Requests that decode, and one that waits, in a KV cache with blocks of 16 tokens."""
    room = KvRoom(num_blocks, num_free, num_running, 16)
    return SchedulerState(
        max_num_scheduled_tokens=8192,
        max_chunk=8192,
        num_seqs_left=100,
        kv=room._replace(waiting_blocks=(room.num_blocks_for(num_tokens),)),
        num_decodes=num_running,
        waiting=(RequestView("waits", num_tokens),),
        num_waiting=1,
    )


def admits(state: SchedulerState) -> bool:
    return backlog(state, Policy(StepTimeModel()).keeps_pace).admission_blocked_by is None


@pytest.mark.parametrize(("num_free", "admitted"), [(24, True), (23, False)])
def test_each_running_request_keeps_blocks_to_grow(num_free: int, admitted: bool) -> None:
    assert RESERVED_BLOCKS == 4
    assert admits(state(10_000, num_free, 5, num_tokens=64)) == admitted


@pytest.mark.parametrize(("num_free", "admitted"), [(66, True), (65, False)])
def test_many_running_requests_keep_a_share_of_the_cache_at_most(
    num_free: int, admitted: bool
) -> None:
    assert int(MAX_RESERVED_SHARE * 1000) == 62
    assert admits(state(1000, num_free, 200, num_tokens=64)) == admitted


@pytest.mark.parametrize(("num_tokens", "admitted"), [(80, True), (81, False)])
def test_a_cache_of_a_few_blocks_is_used_to_the_last(num_tokens: int, admitted: bool) -> None:
    assert admits(state(10, 5, 1, num_tokens)) == admitted


def test_less_important_requests_keep_nothing_from_a_more_important_one() -> None:
    prefilling = replace(state(10_000, 4, 1, num_tokens=64), prefills=(RequestView("runs", 1000),))
    assert not admits(prefilling)
    assert admits(replace(prefilling, lower_priority=frozenset({"runs"})))


def test_prompts_that_make_way_for_the_waiting_one_keep_nothing_from_it() -> None:
    late, next_one = RequestView("late", 1000, rank=(0, 1, 0, 0.0)), RequestView("waits", 64)
    room = replace(state(10_000, 8, 1, num_tokens=64), prefills=(late,))
    assert admits(room)
    assert not admits(replace(room, waiting=(next_one._replace(rank=(0, 1, 0, 1.0)),)))
    assert not admits(replace(room, prefills=(late._replace(rank=(0, -1, 0, 0.0)),)))


def test_prompts_that_run_keep_their_blocks_from_those_that_are_served_after_them() -> None:
    late, served_last = RequestView("late", 160, rank=(0, 1, 0, 0.0)), (0, 1, 0, 1.0)
    room = replace(state(10_000, 28, 1, num_tokens=160), prefills=(late,), num_waiting=2)
    first, last = room.waiting[0], RequestView("last", 80, rank=served_last)
    both = room.kv._replace(waiting_blocks=(10, 5))
    bound = backlog(
        replace(room, waiting=(first, last), kv=both), Policy(StepTimeModel()).keeps_pace
    )
    assert bound.max_new == 1


class OneMillisecondADecode(StepTimeModel):
    def predict(self, work: StepWork) -> float:
        return 1e-3 * work.num_tokens + 1e-6 * work.decode_context


def in_company(num_running: int, pace_s: float, *prompts: int) -> SchedulerState:
    """Requests that run, read no context, and were promised a pace; prompts that wait."""
    waiting = tuple(RequestView(f"w{i}", num_tokens) for i, num_tokens in enumerate(prompts))
    return replace(
        state(10_000, 9_000, num_running, num_tokens=16),
        waiting=waiting,
        num_waiting=len(waiting),
        company=Company(num_running, 0.0, 100.0, pace_s),
    )


def num_admitted(state: SchedulerState) -> int:
    found = backlog(state, Policy(OneMillisecondADecode()).keeps_pace)
    assert (found.admission_blocked_by is BatchLimit.PACE) == (found.max_new == 0)
    return min(found.max_new, len(state.waiting))


@pytest.mark.parametrize(("num_running", "admitted"), [(40, 3), (47, 3), (48, 2), (49, 1), (50, 0)])
def test_as_many_may_join_as_leave_a_decode_step_within_the_tightest_pace(
    num_running: int, admitted: int
) -> None:
    assert num_admitted(in_company(num_running, 0.0502, 1, 1, 1)) == admitted


@pytest.mark.parametrize(("num_running", "admitted"), [(10, 2), (11, 1), (12, 0)])
def test_drafts_of_all_that_run_count(num_running: int, admitted: int) -> None:
    speculates = in_company(num_running, 0.0502, 1, 1)
    assert speculates.company is not None
    company = speculates.company._replace(tokens_each=4)
    assert num_admitted(replace(speculates, company=company)) == admitted


def test_the_pace_of_each_that_joins_counts() -> None:
    room = in_company(10, 0.0502, 1, 1)
    first, second = room.waiting
    hurried = replace(room, waiting=(first, second._replace(pace_s=0.0119)))
    assert num_admitted(room) == 2
    assert num_admitted(hurried) == 1
    assert room.company is not None
    ignored_below_50_ms = room.company._replace(least_pace_s=0.05)
    assert num_admitted(replace(hurried, company=ignored_below_50_ms)) == 2


@pytest.mark.parametrize(
    ("num_spared", "pace_s", "admitted"),
    [
        (0, 0.0111, 1),  # ten decodes and its own
        (5_000, 0.0309, 0),
        (5_000, 0.0311, 1),  # time for 20 tokens, those of ten requests of 200 in 100 steps
        (500, 0.0159, 0),
        (500, 0.0161, 1),  # time for five tokens, as many as it is spared
    ],
)
def test_one_that_the_prefix_cache_spares_prefill_leaves_time_for_that_of_others(
    num_spared: int, pace_s: float, admitted: int
) -> None:
    state = in_company(10, pace_s, 1)
    assert state.company is not None
    company = state.company._replace(mean_prefill=200.0, mean_steps=100.0)
    (waits,) = state.waiting
    spared = waits._replace(num_spared=num_spared)
    assert num_admitted(replace(state, waiting=(spared,), company=company)) == admitted


def test_those_that_join_after_one_that_was_spared_prefill_need_no_time_for_it() -> None:
    state = in_company(10, 0.0331, 1, 1)
    assert state.company is not None
    company = state.company._replace(mean_prefill=200.0, mean_steps=100.0)
    first, second = state.waiting
    waiting = (first._replace(num_spared=5_000), second)
    assert num_admitted(replace(state, waiting=waiting, company=company)) == 2


def test_contexts_count_as_grown_as_they_are_halfway_through_an_answer() -> None:
    assert num_admitted(in_company(10, 0.0119, 800)) == 1  # 11 ms and 850 tokens of context
    assert num_admitted(in_company(10, 0.0118, 800)) == 0


def test_those_beyond_the_view_join_where_nobody_has_a_pace() -> None:
    keeps_pace = Policy(OneMillisecondADecode()).keeps_pace
    assert backlog(in_company(40, inf, 1), keeps_pace).max_new > 1
    assert backlog(in_company(40, 1.0, 1), keeps_pace).max_new == 1


def test_one_request_may_always_run() -> None:
    assert num_admitted(in_company(0, 1e-6, 5000, 5000)) == 1


def test_a_more_important_request_joins_whatever_the_pace_of_the_others() -> None:
    full = in_company(60, 0.05, 1)
    assert num_admitted(full) == 0
    assert num_admitted(replace(full, lower_priority=frozenset({"runs"}))) == 1
    full = in_company(60, 0.05, 1, 1)
    assert full.company is not None
    outranked = full.company._replace(is_outranked=True)
    assert num_admitted(replace(full, company=outranked)) == 1
