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

from tests.support.engineless import Engine
from tests.support.lined_up import NUM_PROMPT, leave_free, lined_up, names, seen
from vllm_sarathi.policy.order import Place, WaitingOrder
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

    def due(self, ready: list[Any], elsewhere: list[Any], outlook: Outlook) -> Due:
        return NOTHING_DUE

    def company(self) -> None:
        return None


def by_length(engine: Engine) -> Snapshot:
    promises: Any = ByLength()
    return take_snapshot(engine.scheduler, Outlook(is_as_planned=True), promises)


def read(engine: Engine) -> SchedulerState:
    return seen(engine).state


def ready(engine: Engine) -> str:
    return names(read(engine).decodes.requests)


def warm(prompt: list[int], **options: Any) -> Engine:
    """An engine whose prefix cache holds a prompt that nobody uses."""
    engine = Engine(Scheduler, enable_prefix_caching=True, **options)
    engine.add("warm", prompt=prompt, max_tokens=1)
    engine.run()
    engine.batches.clear()
    return engine


def hold_blocks(engine: Engine, name: str, num_prompt: int) -> Any:
    """A request in vLLM's second waiting queue."""
    request = engine.add(name, num_prompt)
    engine.scheduler.waiting.remove_request(request)
    second_waiting_queue(engine.scheduler).add_request(request)
    return request


# --- decodes


def test_a_decode_needs_its_last_token_and_those_before_are_its_context() -> None:
    state = read(lined_up("D D"))
    assert (state.decodes.num_tokens, state.decodes.contexts) == ([1, 1], [16, 16])


def test_drafts_of_a_decode_are_tokens_that_it_needs() -> None:
    engine = lined_up("D")
    engine.scheduler.running[0].spec_token_ids = [1, 2, 3]
    assert read(engine).decodes.num_tokens == [4]


def test_a_decode_in_flight_counts_and_is_not_ready() -> None:
    engine = lined_up("D D")
    engine.schedule()
    state = read(engine)
    assert (state.num_decodes, list(state.decodes.requests)) == (2, [])


def test_under_async_scheduling_a_decode_in_flight_is_ready_again() -> None:
    engine = lined_up("D D", AsyncScheduler)
    engine.schedule()
    assert ready(engine) == "d0 d1"


def test_a_decode_whose_last_token_is_in_flight_is_not_ready() -> None:
    engine = lined_up("D D", AsyncScheduler)
    engine.scheduler.running[0].max_tokens = 2
    engine.schedule()
    assert ready(engine) == "d1"


def test_a_decode_is_ready_in_the_step_in_which_vllm_lets_it_run_again() -> None:
    engine = lined_up("D D", AsyncScheduler)
    engine.scheduler.running[0].next_decode_eligible_step = engine.scheduler.current_step + 2
    assert ready(engine) == "d1"
    engine.scheduler.schedule()
    assert ready(engine) == "d0 d1"


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
    engine = Engine(kind, pipeline_parallel_size=3 if staggers else 1)
    engine.scheduler.use_v2_model_runner = staggers
    for i, (num_prompt, num_output) in enumerate(traffic):
        engine.add(f"r{i}", num_prompt, max_tokens=num_output)
    for is_answered in answers:
        decoding = {r.request_id for r in engine.scheduler.running if not r.is_prefill_chunk}
        expected = set(ready(engine).split())
        output = engine.schedule()
        assert expected == decoding & output.num_scheduled_tokens.keys()
        engine.queue.append((output, engine._run(output)))
        while engine.queue and (is_answered or len(engine.queue) > 3):
            engine._answer(*engine.queue.popleft())


# --- prefills


def test_prefills_stand_as_in_vllms_list_where_vllms_order_stands() -> None:
    snapshot = seen(lined_up("P D P"))
    assert names(snapshot.prefills) == names(snapshot.state.prefills) == "p0 p1"


def test_a_prefill_shows_what_is_left_and_what_is_computed() -> None:
    state = read(lined_up("P"))
    assert [tuple(p[:3]) for p in state.prefills] == [("p0", NUM_PROMPT - 16, 16)]


def late(engine: Engine, *order: str) -> Snapshot:
    """What is read where requests come in another order than they run."""
    for request in engine.scheduler.running:
        request.arrival_time = float(order.index(request.request_id))
    return by_length(engine)


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
    engine = lined_up("P D")
    for i in range(6):
        engine.add(f"w{i}", 50)
    before = names(engine.scheduler.running), names(engine.scheduler.waiting)
    assert read(engine) == read(engine)
    assert (names(engine.scheduler.running), names(engine.scheduler.waiting)) == before


# --- those that wait


def test_a_few_of_those_that_wait_are_shown_and_all_are_counted() -> None:
    engine = Engine(Scheduler)
    for i in range(9):
        engine.add(f"w{i}", 50)
    state = read(engine)
    assert (names(state.waiting), state.num_waiting) == ("w0 w1 w2 w3", 9)


def test_the_head_of_a_priority_queue_is_shown_without_a_copy_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(Scheduler, scheduling_policy="priority")
    for i in range(5):
        engine.add(f"w{i}", 50, priority=-i)

    def copied(self: Any) -> Iterator[Any]:
        assert not self, "the queue is copied"
        return iter(())

    monkeypatch.setattr(PriorityRequestQueue, "__iter__", copied)
    state = read(engine)
    assert (names(state.waiting), state.num_waiting, state.has_priorities) == ("w4", 5, True)


def test_those_in_the_second_waiting_queue_come_first() -> None:
    engine = Engine(Scheduler)
    engine.add("next", 50)
    hold_blocks(engine, "holder", 50)
    state = read(engine)
    assert (names(state.waiting), state.num_waiting) == ("holder next", 2)


def test_those_in_the_second_waiting_queue_overtake_nobody() -> None:
    engine = lined_up("P")
    hold_blocks(engine, "holder", 5).arrival_time = 0.0
    engine.add("next", 50)
    state = by_length(engine).state
    assert names(state.waiting) == "next holder"
    assert state.waiting[1].rank > max(p.rank for p in state.prefills)


def test_those_that_vllm_passed_over_overtake_nobody() -> None:
    engine = lined_up("P")
    blocked = engine.add("blocked", 5, arrival_time=0.0)
    if not hasattr(engine.scheduler, "deferred_waiting"):
        pytest.skip("this vLLM keeps them in its second queue")
    engine.scheduler.deferred_waiting.add(blocked)
    engine.add("next", 50)
    assert names(by_length(engine).state.waiting) == "next blocked"


def test_a_queue_of_ours_shows_those_served_first() -> None:
    engine = Engine(Scheduler)
    engine.scheduler.waiting = OrderedQueue(
        WaitingOrder(),
        lambda request: Place(request, 0.0, due_s=inf, num_tokens=request.num_tokens),
    )
    for i in range(9):
        engine.add(f"w{i}", 90 - 10 * i, arrival_time=0.0)
    assert names(by_length(engine).state.waiting) == "w8 w7 w6 w5"


def test_a_preempted_request_comes_before_all_and_recomputes_its_output_too() -> None:
    engine = lined_up("D D")
    leave_free(engine, 1)
    engine.step()
    (view,) = by_length(engine).state.waiting
    assert (view.request_id, view.num_tokens, view.rank[1]) == ("d1", 17, -1)


def test_tokens_in_the_prefix_cache_are_context_of_the_first_chunk() -> None:
    engine = warm(SHARED)
    engine.add("next", prompt=[*SHARED, *range(40)])
    (view,) = read(engine).waiting
    assert view[:3] == ("next", 40, 160)


prompts = st.lists(
    st.tuples(st.integers(0, 100), st.integers(1, 100)), min_size=1, max_size=MAX_WAITING_SHOWN
)


@settings(max_examples=30)
@given(prompts)
def test_a_waiting_request_has_the_tokens_that_vllm_then_schedules(
    lengths: list[tuple[int, int]],
) -> None:
    """Prompts of so many tokens that are cached and so many that are not."""
    engine = warm(SHARED)
    for i, (num_shared, num_own) in enumerate(lengths):
        engine.add(f"w{i}", prompt=[*SHARED[:num_shared], *range(i * 100, i * 100 + num_own)])
    expected = {view.request_id: view.num_tokens for view in read(engine).waiting}
    assert engine.schedule().num_scheduled_tokens == expected


# --- KV blocks and seats


@settings(max_examples=60)
@given(
    num_running=st.integers(0, 160),
    num_shared=st.integers(0, 160),
    num_own=st.integers(1, 100),
)
def test_the_first_waiting_request_takes_the_blocks_foretold(
    num_running: int, num_shared: int, num_own: int
) -> None:
    engine = warm(SHARED)
    if num_running:
        engine.add("running", prompt=SHARED[:num_running])
        engine.schedule()
    engine.add("first", prompt=[*SHARED[:num_shared], *range(num_own)])
    before = read(engine).kv
    engine.schedule()
    taken = before.num_free_blocks - read(engine).kv.num_free_blocks
    assert before.waiting_blocks == (taken,)


def first_waits(engine: Engine) -> None:
    engine.add("first", 50)


def nobody_waits(engine: Engine) -> None:
    pass


def others_hold_blocks(engine: Engine) -> None:
    first_waits(engine)
    hold_blocks(engine, "holder", 50)


def adapters_are_counted(engine: Engine) -> None:
    first_waits(engine)
    engine.scheduler.lora_config = LoRAConfig()


def first_is_passed_over(engine: Engine) -> None:
    first_waits(engine)
    engine.scheduler.deferred_waiting = {engine.scheduler.requests["first"]}


def kv_cache_forgets(engine: Engine) -> None:
    first_waits(engine)
    window = SlidingWindowSpec(
        block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32, sliding_window=64
    )
    engine.scheduler.kv_cache_config.kv_cache_groups[:] = [KVCacheGroupSpec(["layer"], window)]


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
    engine = Engine(Scheduler)
    happens(engine)
    assert read(engine).kv.waiting_blocks is None


def test_the_need_of_the_first_is_told_though_others_are_passed_over() -> None:
    engine = Engine(Scheduler)
    first_waits(engine)
    engine.scheduler.deferred_waiting = {engine.add("second", 50)}
    assert read(engine).kv.waiting_blocks in ((4,), (4, 4))


def test_of_priorities_the_first_is_the_most_important() -> None:
    engine = Engine(Scheduler, scheduling_policy="priority")
    engine.add("later", 160, priority=1)
    engine.add("first", 50, priority=0)
    assert read(engine).kv.waiting_blocks in ((4,), (4, 4))


def test_free_blocks_and_running_requests_are_those_of_vllm() -> None:
    engine = lined_up("P D D")
    leave_free(engine, 7)
    kv = read(engine).kv
    assert (kv.num_free_blocks, kv.num_running, kv.block_size, kv.num_groups) == (7, 3, 16, 1)


@pytest.mark.parametrize(
    ("num_streaming", "limit", "num_free"), [(0, 5, 3), (1, 5, 2), (3, 5, 0), (9, 5, 0)]
)
def test_requests_that_run_and_streaming_sessions_take_seats(
    num_streaming: int, limit: int, num_free: int
) -> None:
    engine = lined_up("P D")
    engine.scheduler.num_waiting_for_streaming_input = num_streaming
    setattr(engine.scheduler, admission_attribute(engine.scheduler), limit)
    assert read(engine).num_free_seats == num_free


def test_the_limit_of_a_step_is_vllms() -> None:
    assert read(Engine(Scheduler, max_num_batched_tokens=777)).max_num_scheduled_tokens == 777


def test_a_request_that_does_not_read_the_prefix_cache_shares_no_blocks() -> None:
    engine = Engine(Scheduler, enable_prefix_caching=True)
    engine.add("running", prompt=SHARED, max_tokens=40)
    engine.step()
    engine.add("first", prompt=SHARED).skip_reading_prefix_cache = True
    assert read(engine).kv.waiting_blocks == (10,)


def test_a_decode_whose_last_token_of_the_models_length_is_in_flight_is_not_ready() -> None:
    engine = Engine(AsyncScheduler, max_model_len=64, max_num_batched_tokens=256)
    engine.add("d0", 62, max_tokens=64)
    engine.schedule()
    assert engine.schedule().num_scheduled_tokens == {"d0": 1}
    assert ready(engine) == ""


def test_of_a_prompt_that_is_shared_as_a_whole_the_last_block_is_taken() -> None:
    engine = Engine(Scheduler, enable_prefix_caching=True)
    engine.add("running", prompt=SHARED, max_tokens=40)
    engine.step()
    engine.add("first", prompt=SHARED)
    assert read(engine).kv.waiting_blocks == (1,)
