"""What is read of vLLM's queues, against what vLLM then does."""

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.config import LoRAConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import PriorityRequestQueue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import KVCacheGroupSpec, SlidingWindowSpec

from tests.support.lined_up import NUM_PROMPT, leave_free, lined_up, names, seen
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.state import NOTHING_DUE, Due, Outlook, Rank, SchedulerState
from vllm_sarathi.scheduler.ordered_queue import OrderedQueue
from vllm_sarathi.scheduler.snapshot import MAX_WAITING_SHOWN, Snapshot, take_snapshot
from vllm_sarathi.scheduler.vllm_versions import admission_attribute, second_waiting_queue

SHARED = [5] * 160


class ByLength:
    """Promises by which the shortest prompt comes first, and one that has begun before all."""

    order = object()

    def rank(self, request: Any, num_tokens: int) -> Rank:
        return 0, -bool(request.num_output_tokens), 0, request.arrival_time + num_tokens

    def due(self, *given: Any) -> Due:
        return NOTHING_DUE

    def pace_s(self, request: Any) -> float:
        return inf


def by_length(loop: SchedulerLoop) -> Snapshot:
    promises: Any = ByLength()
    return take_snapshot(loop.scheduler, Outlook(is_as_planned=True), promises)


def read(loop: SchedulerLoop) -> SchedulerState:
    return seen(loop).state


def ready(loop: SchedulerLoop) -> str:
    return names(read(loop).decodes.requests)


def warm(prompt: list[int], **options: Any) -> SchedulerLoop:
    """A loop whose prefix cache holds a prompt that nobody uses."""
    loop = SchedulerLoop(Scheduler, enable_prefix_caching=True, **options)
    loop.add("warm", prompt=prompt, max_tokens=1)
    loop.run()
    loop.batches.clear()
    return loop


def hold_blocks(loop: SchedulerLoop, name: str, num_prompt: int) -> Any:
    """A request in vLLM's second waiting queue."""
    request = loop.add(name, num_prompt)
    loop.scheduler.waiting.remove_request(request)
    second_waiting_queue(loop.scheduler).add_request(request)
    return request


# --- decodes


def test_a_decode_needs_its_last_token_and_those_before_are_its_context() -> None:
    state = read(lined_up("D D"))
    assert (state.decodes.num_tokens, state.decodes.contexts) == ([1, 1], [16, 16])


def test_drafts_of_a_decode_are_tokens_that_it_needs() -> None:
    loop = lined_up("D")
    loop.scheduler.running[0].spec_token_ids = [1, 2, 3]
    assert read(loop).decodes.num_tokens == [4]


def test_a_decode_in_flight_counts_and_is_not_ready() -> None:
    loop = lined_up("D D")
    loop.schedule()
    state = read(loop)
    assert (state.num_decodes, list(state.decodes.requests)) == (2, [])


def test_under_async_scheduling_a_decode_in_flight_is_ready_again() -> None:
    loop = lined_up("D D", AsyncScheduler)
    loop.schedule()
    assert ready(loop) == "d0 d1"


def test_a_decode_whose_last_token_is_in_flight_is_not_ready() -> None:
    loop = lined_up("D D", AsyncScheduler)
    loop.scheduler.running[0].max_tokens = 2
    loop.schedule()
    assert ready(loop) == "d1"


def test_a_decode_is_ready_in_the_step_in_which_vllm_lets_it_run_again() -> None:
    loop = lined_up("D D", AsyncScheduler)
    loop.scheduler.running[0].next_decode_eligible_step = loop.scheduler.current_step + 2
    assert ready(loop) == "d1"
    loop.scheduler.schedule()
    assert ready(loop) == "d0 d1"


@settings(max_examples=30)
@given(
    traffic=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 6)), min_size=1, max_size=8),
    answers=st.lists(st.booleans(), min_size=10, max_size=40),
    kind=st.sampled_from([Scheduler, AsyncScheduler]),
    staggers=st.booleans(),
)
def test_the_ready_decodes_are_those_that_vllm_schedules(
    traffic: list[tuple[int, int]], answers: list[bool], kind: type, staggers: bool
) -> None:
    """Requests of (prompt, output); steps that are answered before the next, or later."""
    loop = SchedulerLoop(kind, pipeline_parallel_size=3 if staggers else 1)
    loop.scheduler.use_v2_model_runner = staggers
    for i, (num_prompt, num_output) in enumerate(traffic):
        loop.add(f"r{i}", num_prompt, max_tokens=num_output)
    for is_answered in answers:
        decoding = {r.request_id for r in loop.scheduler.running if not r.is_prefill_chunk}
        expected = set(ready(loop).split())
        output = loop.schedule()
        assert expected == decoding & output.num_scheduled_tokens.keys()
        loop.queue.append((output, loop._run(output)))
        while loop.queue and (is_answered or len(loop.queue) > 3):
            loop._answer(*loop.queue.popleft())


# --- prefills


def test_prefills_stand_as_in_vllms_list_where_vllms_order_stands() -> None:
    snapshot = seen(lined_up("P D P"))
    assert names(snapshot.prefills) == names(snapshot.state.prefills) == "p0 p1"


def test_a_prefill_shows_what_is_left_and_what_is_computed() -> None:
    state = read(lined_up("P"))
    assert [tuple(p[:3]) for p in state.prefills] == [("p0", NUM_PROMPT - 16, 16)]


def late(loop: SchedulerLoop, *order: str) -> Snapshot:
    """What is read where requests come in another order than they run."""
    for request in loop.scheduler.running:
        request.arrival_time = float(order.index(request.request_id))
    return by_length(loop)


def test_prefills_stand_by_rank_where_ranks_are_served() -> None:
    snapshot = late(lined_up("P P P"), "p2", "p0", "p1")
    assert names(snapshot.prefills) == names(snapshot.state.prefills) == "p2 p0 p1"


@pytest.mark.parametrize(
    ("letters", "arrivals", "in_order"),
    [
        ("D D P P", "d0 d1 p0 p1", True),
        ("D D P P", "d0 d1 p1 p0", False),
        ("P D", "p0 d0", False),
        ("D P D", "d0 p0 d1", False),
        ("D D", "d1 d0", True),
        ("P P", "p0 p1", True),
    ],
)
def test_vllms_list_is_in_order_with_decodes_first_and_prefills_by_rank(
    letters: str, arrivals: str, in_order: bool
) -> None:
    assert late(lined_up(letters), *arrivals.split()).state.is_in_order is in_order


def test_reading_changes_nothing() -> None:
    loop = lined_up("P D")
    for i in range(6):
        loop.add(f"w{i}", 50)
    before = names(loop.scheduler.running), names(loop.scheduler.waiting)
    assert read(loop) == read(loop)
    assert (names(loop.scheduler.running), names(loop.scheduler.waiting)) == before


# --- those that wait


def test_a_few_of_those_that_wait_are_shown_and_all_are_counted() -> None:
    loop = SchedulerLoop(Scheduler)
    for i in range(9):
        loop.add(f"w{i}", 50)
    state = read(loop)
    assert (names(state.waiting), state.num_waiting) == ("w0 w1 w2 w3", 9)


def test_the_head_of_a_priority_queue_is_shown_without_a_copy_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = SchedulerLoop(Scheduler, scheduling_policy="priority")
    for i in range(5):
        loop.add(f"w{i}", 50, priority=-i)

    def copied(self: Any) -> Iterator[Any]:
        assert not self, "the queue is copied"
        return iter(())

    monkeypatch.setattr(PriorityRequestQueue, "__iter__", copied)
    state = read(loop)
    assert (names(state.waiting), state.num_waiting, state.has_priorities) == ("w4", 5, True)


def test_those_in_the_second_waiting_queue_come_first() -> None:
    loop = SchedulerLoop(Scheduler)
    loop.add("next", 50)
    hold_blocks(loop, "holder", 50)
    state = read(loop)
    assert (names(state.waiting), state.num_waiting) == ("holder next", 2)


def test_those_in_the_second_waiting_queue_overtake_nobody() -> None:
    loop = lined_up("P")
    hold_blocks(loop, "holder", 5).arrival_time = 0.0
    loop.add("next", 50)
    state = by_length(loop).state
    assert names(state.waiting) == "next holder"
    assert state.waiting[1].rank > max(p.rank for p in state.prefills)


def test_those_that_vllm_passed_over_overtake_nobody() -> None:
    loop = lined_up("P")
    blocked = loop.add("blocked", 5, arrival_time=0.0)
    if not hasattr(loop.scheduler, "deferred_waiting"):
        pytest.skip("this vLLM keeps them in its second queue")
    loop.scheduler.deferred_waiting.add(blocked)
    loop.add("next", 50)
    assert names(by_length(loop).state.waiting) == "next blocked"


def test_a_queue_of_ours_shows_those_served_first() -> None:
    loop = SchedulerLoop(Scheduler)
    loop.scheduler.waiting = OrderedQueue(
        WaitingOrder(),
        lambda request: Place(request, 0.0, due_s=inf, num_tokens=request.num_tokens),
    )
    for i in range(9):
        loop.add(f"w{i}", 90 - 10 * i, arrival_time=0.0)
    assert names(by_length(loop).state.waiting) == "w8 w7 w6 w5"


def test_a_queue_of_ours_shows_them_as_they_will_be_served_though_ranks_have_changed() -> None:
    loop = SchedulerLoop(Scheduler)
    loop.scheduler.waiting = OrderedQueue(
        WaitingOrder(), lambda request: Place(request, request.arrival_time, inf, num_tokens=1)
    )
    for i in range(9):
        loop.add(f"w{i}", 90 - 10 * i, arrival_time=float(i))
    assert names(by_length(loop).state.waiting) == "w0 w1 w2 w3"


def test_a_preempted_request_comes_before_all_and_recomputes_its_output_too() -> None:
    loop = lined_up("D D")
    leave_free(loop, 1)
    loop.step()
    (view,) = by_length(loop).state.waiting
    assert (view.request_id, view.num_tokens, view.rank[1]) == ("d1", 17, -1)
    assert view.num_spared == 0


def test_tokens_in_the_prefix_cache_are_context_of_the_first_chunk() -> None:
    loop = warm(SHARED)
    loop.add("next", prompt=[*SHARED, *range(40)])
    (view,) = read(loop).waiting
    assert view[:3] == ("next", 40, 160)
    assert view.num_spared == 160


prompts = st.lists(
    st.tuples(st.integers(0, 100), st.integers(1, 100)), min_size=1, max_size=MAX_WAITING_SHOWN
)


@settings(max_examples=30)
@given(prompts)
def test_a_waiting_request_has_the_tokens_that_vllm_then_schedules(
    lengths: list[tuple[int, int]],
) -> None:
    """Prompts of so many tokens that are cached and so many that are not."""
    loop = warm(SHARED)
    for i, (num_shared, num_own) in enumerate(lengths):
        loop.add(f"w{i}", prompt=[*SHARED[:num_shared], *range(i * 100, i * 100 + num_own)])
    expected = {view.request_id: view.num_tokens for view in read(loop).waiting}
    assert loop.schedule().num_scheduled_tokens == expected


# --- KV blocks and max_num_seqs


@settings(max_examples=60)
@given(
    num_running=st.integers(0, 160),
    num_shared=st.integers(0, 160),
    num_own=st.integers(1, 100),
)
def test_the_first_waiting_request_takes_the_blocks_foretold(
    num_running: int, num_shared: int, num_own: int
) -> None:
    loop = warm(SHARED)
    if num_running:
        loop.add("running", prompt=SHARED[:num_running])
        loop.schedule()
    loop.add("first", prompt=[*SHARED[:num_shared], *range(num_own)])
    before = read(loop).kv
    loop.schedule()
    taken = before.num_free_blocks - read(loop).kv.num_free_blocks
    assert before.waiting_blocks == (taken,)


def first_waits(loop: SchedulerLoop) -> None:
    loop.add("first", 50)


def nobody_waits(loop: SchedulerLoop) -> None:
    pass


def others_hold_blocks(loop: SchedulerLoop) -> None:
    first_waits(loop)
    hold_blocks(loop, "holder", 50)


def adapters_are_counted(loop: SchedulerLoop) -> None:
    first_waits(loop)
    loop.scheduler.lora_config = LoRAConfig()


def first_is_passed_over(loop: SchedulerLoop) -> None:
    first_waits(loop)
    loop.scheduler.deferred_waiting = {loop.scheduler.requests["first"]}


def kv_cache_forgets(loop: SchedulerLoop) -> None:
    first_waits(loop)
    window = SlidingWindowSpec(
        block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32, sliding_window=64
    )
    loop.scheduler.kv_cache_config.kv_cache_groups[:] = [KVCacheGroupSpec(["layer"], window)]


@pytest.mark.parametrize(
    "happens",
    [
        nobody_waits,
        others_hold_blocks,
        adapters_are_counted,
        first_is_passed_over,
        kv_cache_forgets,
    ],
)
def test_the_need_of_the_first_is_not_told_where(happens: Any) -> None:
    loop = SchedulerLoop(Scheduler)
    happens(loop)
    assert read(loop).kv.waiting_blocks is None


def test_the_need_of_the_first_is_told_though_others_are_passed_over() -> None:
    loop = SchedulerLoop(Scheduler)
    first_waits(loop)
    loop.scheduler.deferred_waiting = {loop.add("second", 50)}
    assert read(loop).kv.waiting_blocks in ((4,), (4, 4))


def test_of_priorities_the_first_is_the_most_important() -> None:
    loop = SchedulerLoop(Scheduler, scheduling_policy="priority")
    loop.add("later", 160, priority=1)
    loop.add("first", 50, priority=0)
    assert read(loop).kv.waiting_blocks in ((4,), (4, 4))


def test_free_blocks_and_running_requests_are_those_of_vllm() -> None:
    loop = lined_up("P D D")
    leave_free(loop, 7)
    kv = read(loop).kv
    assert (kv.num_free_blocks, kv.num_running, kv.block_size, kv.num_groups) == (7, 3, 16, 1)


@pytest.mark.parametrize(
    ("num_streaming", "limit", "num_free"), [(0, 5, 3), (1, 5, 2), (3, 5, 0), (9, 5, 0)]
)
def test_requests_that_run_and_streaming_sessions_count(
    num_streaming: int, limit: int, num_free: int
) -> None:
    loop = lined_up("P D")
    loop.scheduler.num_waiting_for_streaming_input = num_streaming
    setattr(loop.scheduler, admission_attribute(loop.scheduler), limit)
    assert read(loop).num_seqs_left == num_free


def test_the_limit_of_a_step_is_vllms() -> None:
    assert (
        read(SchedulerLoop(Scheduler, max_num_batched_tokens=777)).max_num_scheduled_tokens == 777
    )


def test_a_request_that_does_not_read_the_prefix_cache_shares_no_blocks() -> None:
    loop = SchedulerLoop(Scheduler, enable_prefix_caching=True)
    loop.add("running", prompt=SHARED, max_tokens=40)
    loop.step()
    loop.add("first", prompt=SHARED).skip_reading_prefix_cache = True
    assert read(loop).kv.waiting_blocks == (10,)


def test_a_decode_whose_last_token_of_the_models_length_is_in_flight_is_not_ready() -> None:
    loop = SchedulerLoop(AsyncScheduler, max_model_len=64, max_num_batched_tokens=256)
    loop.add("d0", 62, max_tokens=64)
    loop.schedule()
    assert loop.schedule().num_scheduled_tokens == {"d0": 1}
    assert ready(loop) == ""


def test_of_a_prompt_that_is_shared_as_a_whole_the_last_block_is_taken() -> None:
    loop = SchedulerLoop(Scheduler, enable_prefix_caching=True)
    loop.add("running", prompt=SHARED, max_tokens=40)
    loop.step()
    loop.add("first", prompt=SHARED)
    assert read(loop).kv.waiting_blocks == (1,)
