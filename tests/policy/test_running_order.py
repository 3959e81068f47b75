"""How vLLM's list of running requests stands in a step, and that its victims stay vLLM's."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lined_up import leave_free, lined_up
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.running_order import arranged
from vllm_sarathi.policy.state import KvRoom, RequestView, SchedulerState
from vllm_sarathi.policy.step import Chunk, RunningOrder, StepPlan

STALL_FREE = {"preset": "stall-free", "token_budget": 256}


def state(num_decodes: int, prefills: str, num_free: int = 1000, **fields: Any) -> SchedulerState:
    """Running requests whose list is out of order unless told otherwise."""
    running = tuple(RequestView(name, 500) for name in prefills.split())
    return SchedulerState(
        max_num_scheduled_tokens=2048,
        max_chunk=2048,
        num_seqs_left=100,
        kv=KvRoom(1000, num_free, num_decodes + len(running), block_size=16),
        num_decodes=num_decodes,
        prefills=running,
        **{"is_in_order": False, **fields},
    )


def plan(num_decodes: int, chunks: str, token_budget: int = 256) -> StepPlan:
    """A plan of chunks of a token each."""
    served = tuple(Chunk(name, 1) for name in chunks.split())
    return StepPlan(token_budget, num_decode_tokens=num_decodes, chunks=served)


def test_a_list_in_order_stays_as_it_is() -> None:
    before = plan(3, "p0")
    assert arranged(before, state(3, "p0 p1", is_in_order=True), 3) is before


def test_decodes_go_first_where_the_batch_surely_finds_blocks() -> None:
    after = arranged(plan(3, "p0"), state(3, "p0"), 3)
    assert (after.order, after.token_budget) == (RunningOrder.DECODES_FIRST, 256)


def test_a_batch_with_decodes_first_is_cut_to_the_blocks_that_are_free() -> None:
    before, after = plan(3, "p0"), arranged(plan(3, "p0"), state(3, "p0", num_free=10), 3)
    assert after == replace(before, token_budget=2 * 16, order=RunningOrder.DECODES_FIRST)


def test_where_the_free_blocks_hold_decodes_alone_prefills_before_them_sit_out() -> None:
    after = arranged(plan(3, "p0"), state(3, "p0", num_free=8), 3)
    assert after == replace(plan(3, "p0"), order=RunningOrder.LAST_DECODE_FIRST)


def test_by_priority_the_victim_does_not_depend_on_the_order() -> None:
    after = arranged(plan(3, "p0"), state(3, "p0", num_free=0, has_priorities=True), 3)
    assert (after.order, after.token_budget) == (RunningOrder.DECODES_FIRST, 256)


@pytest.mark.parametrize(
    ("num_decodes", "has_adapters"), [(0, False), (3, True)], ids=["no decode", "adapters"]
)
def test_prefills_do_not_sit_out_without_a_decode_or_with_adapters(
    num_decodes: int, has_adapters: bool
) -> None:
    before = plan(num_decodes, "p0")
    seen = state(num_decodes, "p0", num_free=0, has_adapters=has_adapters)
    assert arranged(before, seen, num_decodes) == before


def test_a_prefill_left_out_for_one_that_waits_is_overtaken() -> None:
    after = arranged(plan(3, "p1 w0"), state(3, "p0 p1", is_in_order=True), 3)
    assert after.order is RunningOrder.DECODES_FIRST
    assert after.overtaken == {"p0"}


def test_a_prefill_left_out_for_others_that_run_is_not_overtaken() -> None:
    assert arranged(plan(3, "p1"), state(3, "p0 p1"), 3).overtaken == frozenset()


def test_prefills_that_all_have_a_chunk_are_not_overtaken() -> None:
    assert arranged(plan(3, "p0 w0"), state(3, "p0"), 3).overtaken == frozenset()


@given(
    num_decodes=st.integers(0, 6),
    running=st.integers(1, 4),
    num_chunks=st.integers(1, 4),
    num_new=st.integers(0, 2),
    num_free=st.integers(0, 80),
    budget=st.integers(1, 600),
    is_in_order=st.booleans(),
)
def test_first_come_first_served_no_reordered_batch_can_run_out_of_blocks(
    num_decodes: int,
    running: int,
    num_chunks: int,
    num_new: int,
    num_free: int,
    budget: int,
    is_in_order: bool,
) -> None:
    prefills = [f"p{i}" for i in range(running)]
    chosen = [*prefills[:num_chunks], *(f"w{i}" for i in range(num_new))]
    before = plan(num_decodes, " ".join(chosen), num_decodes + budget)
    seen = state(num_decodes, " ".join(prefills), num_free, is_in_order=is_in_order)
    after = arranged(before, seen, num_decodes)
    assert after.token_budget <= before.token_budget
    if after.order is RunningOrder.DECODES_FIRST:
        assert after.token_budget <= seen.kv.num_sure_tokens(num_decodes + len(chosen))
        assert after.token_budget > num_decodes
    else:
        assert after == replace(before, order=after.order)


@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    begun=st.lists(st.integers(0, 40), min_size=6, max_size=6),
    num_free=st.integers(0, 60),
    num_groups=st.integers(1, 3),
    lookahead=st.integers(0, 5),
)
def test_sure_tokens_find_blocks_however_they_spread(
    sizes: list[int], begun: list[int], num_free: int, num_groups: int, lookahead: int
) -> None:
    """Requests of so many tokens more than so many computed ones."""
    room = KvRoom(1000, num_free, len(sizes), 16, num_groups, lookahead)
    if sum(sizes) > room.num_sure_tokens(len(sizes)):
        return
    taken = 0
    for size, computed in zip(sizes, begun, strict=False):
        held = -(-computed // 16)
        taken += num_groups * (-(-(computed + size + lookahead) // 16) - held)
    assert taken <= num_free


# --- vLLM's victim


def preempts_from_the_end(loop: SchedulerLoop) -> None:
    """Run everything; in each step those preempted are the last of vLLM's list."""
    for _ in range(500):
        before = [r.request_id for r in loop.scheduler.running]
        loop.preempted.clear()
        loop.step()
        num_preempted = len(loop.preempted)
        assert sorted(before[len(before) - num_preempted :]) == loop.preempted
        if not loop.scheduler.has_unfinished_requests():
            return
    raise AssertionError("some never end")


@settings(max_examples=25)
@given(
    letters=st.lists(st.sampled_from("PD"), min_size=2, max_size=6),
    num_free=st.integers(0, 60),
    ours=st.sampled_from([SarathiScheduler, AsyncSarathiScheduler]),
    chosen=st.sampled_from([STALL_FREE, STALL_FREE | {"ttft_slo_ms": 500, "order": "edf"}]),
    num_new=st.integers(0, 4),
)
def test_whatever_the_order_vllm_preempts_the_last_of_its_own_list(
    letters: list[str], num_free: int, ours: type, chosen: dict[str, Any], num_new: int
) -> None:
    loop = lined_up(" ".join(letters), ours, settings=chosen, in_flight=1, num_blocks=200)
    leave_free(loop, num_free + 45)  # room for the longest request alone
    for i in range(num_new):
        loop.add(f"w{i}", 100, max_tokens=40)
    preempts_from_the_end(loop)
