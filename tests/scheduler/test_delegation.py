"""A plan applied to vLLM's own ``schedule()``, and everything as before afterwards."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lined_up import leave_free, lined_up, names, seen
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi.policy.step import Chunk, RunningOrder, StepPlan
from vllm_sarathi.scheduler.delegation import applied, overridden, restored, visible_requests
from vllm_sarathi.scheduler.vllm_versions import admission_attribute

SOME = (Chunk("p0", 1),)
"""A plan with any prefill restricts the tokens of the batch; which is for vLLM to see."""


def follow(loop: SchedulerLoop, skipped: Sequence[str] = (), **fields: Any) -> None:
    """Schedule one batch after a plan."""
    hidden = tuple(loop.scheduler.requests[name] for name in skipped)
    plan = replace(StepPlan(token_budget=2048, skipped_decodes=hidden), **fields)
    with applied(loop.scheduler, plan, seen(loop)):
        loop.schedule()


def waiting_for(loop: SchedulerLoop, num_new: int, max_running: int = 256) -> SchedulerLoop:
    """The same, with requests that wait and a limit on those that run."""
    setattr(loop.scheduler, admission_attribute(loop.scheduler), max_running)
    for i in range(num_new):
        loop.add(f"w{i}", 20)
    return loop


def levers(scheduler: Any) -> dict[str, Any]:
    """What a plan may change."""
    names = (
        "long_prefill_token_threshold",
        "adaptive_long_prefill_threshold",
        "max_num_scheduled_tokens",
        "max_num_running_reqs",
        "max_num_active_reqs",
    )
    owners = (scheduler, scheduler.scheduler_config)
    return {n: getattr(owner, n) for n in names for owner in owners if hasattr(owner, n)}


# --- the order in which vLLM sees its running requests


def visible(letters: str, skipped: str = "", by: str = "", **fields: Any) -> str:
    """``visible("P D", order=...)``: what vLLM sees; ``by`` is the order of service."""
    scheduler = lined_up(letters).scheduler
    prefills = [r for r in scheduler.running if r.is_prefill_chunk]
    prefills.sort(key=lambda r: by.find(r.request_id))
    plan = StepPlan(
        0, skipped_decodes=tuple(scheduler.requests[n] for n in skipped.split()), **fields
    )
    return names(visible_requests(scheduler.running, plan, prefills))


@pytest.mark.parametrize(
    ("order", "shown"),
    [
        (RunningOrder.UNCHANGED, "p0 d0 p1 d1 p2"),
        (RunningOrder.DECODES_FIRST, "d0 d1 p0 p1 p2"),
        (RunningOrder.LAST_DECODE_FIRST, "d0 d1 p2"),
    ],
)
def test_each_order_shows_vllm_its_list_so(order: RunningOrder, shown: str) -> None:
    assert visible("P D P D P", order=order) == shown


def test_behind_the_decodes_prefills_stand_in_the_order_of_service() -> None:
    assert visible("P D P P", by="p2 p0 p1", order=RunningOrder.DECODES_FIRST) == "d0 p2 p0 p1"


def test_overtaken_prefills_sit_the_step_out() -> None:
    shown = visible("P D P", order=RunningOrder.DECODES_FIRST, overtaken=frozenset({"p0"}))
    assert shown == "d0 p1"


@pytest.mark.parametrize(
    ("order", "shown"),
    [
        (RunningOrder.UNCHANGED, "p0 p1 d2"),
        (RunningOrder.DECODES_FIRST, "d2 p0 p1"),
        (RunningOrder.LAST_DECODE_FIRST, "d2"),
    ],
)
def test_absent_requests_are_not_seen_in_any_order(order: RunningOrder, shown: str) -> None:
    assert visible("P D D P D", skipped="d0 d1", order=order) == shown


def test_a_list_that_stays_as_it_is_is_not_copied() -> None:
    running = lined_up("P D").scheduler.running
    assert visible_requests(running, StepPlan(0), []) is running


# --- tokens


def test_decodes_take_what_they_need_where_there_is_no_prefill() -> None:
    loop = lined_up("D D D")
    follow(loop, token_budget=1, max_new_prefills=0)
    assert loop.batches == ["D3"]


def test_a_batch_with_prefill_keeps_to_the_budget() -> None:
    loop = lined_up("D P")
    follow(loop, token_budget=100, chunks=SOME, max_new_prefills=0)
    assert loop.batches == ["D1 P99"]


def test_no_budget_exceeds_vllms_limit() -> None:
    loop = lined_up("D P")
    loop.scheduler.max_num_scheduled_tokens = 256  # with drafts, less than a batch may hold
    follow(loop, token_budget=10_000, chunks=SOME, max_new_prefills=0)
    assert loop.batches == ["D1 P255"]


def test_no_prefill_gets_more_than_the_largest_chunk() -> None:
    loop = lined_up("D P P")
    follow(loop, chunks=SOME, max_new_prefills=0, max_chunk=100)
    assert loop.batches == ["D1 P100 P100"]


def test_a_lower_threshold_of_the_user_stays() -> None:
    loop = lined_up("P P", long_prefill_token_threshold=40)
    follow(loop, chunks=SOME, max_new_prefills=0, max_chunk=100)
    assert loop.batches == ["P40 P40"]


def test_vllms_adaptive_threshold_does_not_undo_the_largest_chunk() -> None:
    loop = lined_up("P P")
    loop.scheduler.adaptive_long_prefill_threshold = True
    follow(loop, chunks=SOME, max_new_prefills=0, max_chunk=100)
    assert loop.batches == ["P100 P100"]
    assert loop.scheduler.adaptive_long_prefill_threshold is True


def test_a_plan_that_leaves_admission_to_vllm_and_hides_nobody_changes_nothing() -> None:
    loop = lined_up("P D")
    running, before = loop.scheduler.running, levers(loop.scheduler)
    plan = StepPlan(token_budget=1, chunks=SOME, max_chunk=1)
    with applied(loop.scheduler, plan, seen(loop)):
        assert loop.scheduler.running is running
        assert levers(loop.scheduler) == before


# --- max_num_seqs


@pytest.mark.parametrize(
    ("max_new", "batch"),
    [(0, "D2"), (1, "D2 P20"), (2, "D2 P20 P20"), (9, "D2 P20 P20 P20"), (None, "D2 P20 P20 P20")],
)
def test_no_more_requests_are_admitted_than_planned(max_new: int | None, batch: str) -> None:
    loop = waiting_for(lined_up("D D"), 3)
    follow(loop, max_new_prefills=max_new)
    assert loop.batches == [batch]


@pytest.mark.parametrize("max_new", [9, None])
@pytest.mark.parametrize(
    ("skipped", "batch"), [("", "D3 P20"), ("d0", "D2 P20"), ("d0 d2", "D1 P20")]
)
def test_hidden_requests_count_as_running(skipped: str, batch: str, max_new: int | None) -> None:
    loop = waiting_for(lined_up("D D D"), 3, max_running=4)
    follow(loop, skipped=skipped.split(), max_new_prefills=max_new)
    assert loop.batches == [batch]
    assert names(loop.scheduler.running) == "d0 d1 d2 w0"


def test_prefills_that_sit_a_step_out_count_as_running() -> None:
    loop = waiting_for(lined_up("D P P"), 3, max_running=4)
    order, overtaken = RunningOrder.DECODES_FIRST, frozenset({"p0", "p1"})
    follow(loop, chunks=SOME, max_new_prefills=9, order=order, overtaken=overtaken)
    assert loop.batches == ["D1 P20"]
    assert names(loop.scheduler.running) == "d0 p0 p1 w0"


@pytest.mark.parametrize(
    ("max_running", "max_new", "batch"), [(5, 9, "D1 P20"), (9, 1, "D1 P20"), (4, 9, "D1")]
)
def test_streaming_sessions_count_as_running(max_running: int, max_new: int, batch: str) -> None:
    loop = waiting_for(lined_up("D D"), 3, max_running)
    loop.scheduler.num_waiting_for_streaming_input = 2
    follow(loop, skipped=["d1"], max_new_prefills=max_new)
    assert loop.batches == [batch]


# --- everything as before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("order", RunningOrder)
@pytest.mark.parametrize("skipped", [(), ("d0",)])
def test_everything_is_as_before_also_after_an_exception(
    fails: bool, order: RunningOrder, skipped: tuple[str, ...]
) -> None:
    loop = waiting_for(lined_up("P D P D"), 2)
    scheduler = loop.scheduler
    running, before = names(scheduler.running), levers(scheduler)
    plan = StepPlan(
        token_budget=100,
        chunks=SOME,
        max_new_prefills=1,
        max_chunk=50,
        order=order,
        skipped_decodes=tuple(scheduler.requests[name] for name in skipped),
    )

    raises = pytest.raises(ArithmeticError) if fails else nullcontext()
    with raises, applied(scheduler, plan, seen(loop)):
        assert levers(scheduler) != before
        if fails:
            raise ArithmeticError
    assert (names(scheduler.running), names(scheduler.waiting)) == (running, "w0 w1")
    assert levers(scheduler) == before


def test_attributes_are_restored_where_one_of_them_cannot_be_set() -> None:
    @dataclass
    class Owner:
        first: int = 1

        @property
        def second(self) -> int:
            return 2

    owner = Owner()
    with pytest.raises(AttributeError), overridden(owner, {"first": 5, "second": 6}):
        pass
    assert owner.first == 1


def test_a_request_preempted_while_others_are_hidden_waits_and_they_run_on() -> None:
    loop = lined_up("D D D")
    leave_free(loop, 1)
    follow(loop, skipped=["d0"])
    assert loop.batches == ["D1"]
    assert names(loop.scheduler.running) == "d0 d1"
    assert names(loop.scheduler.waiting) == "d2"


lists = st.permutations(range(8))


@given(before=lists, num_before=st.integers(0, 8), after=lists, data=st.data())
def test_every_survivor_is_in_its_old_place(
    before: list[int], num_before: int, after: list[int], data: st.DataObject
) -> None:
    """Of eight requests so many ran; vLLM saw and kept some of them, and admitted others."""
    running, others = before[:num_before], before[num_before:]
    shown = data.draw(st.sets(st.sampled_from(running)) if running else st.just(set()))
    kept = data.draw(st.sets(st.sampled_from(sorted(shown))) if shown else st.just(set()))
    admitted = data.draw(st.lists(st.sampled_from(others), unique=True) if others else st.just([]))
    scheduled = [request for request in after if request in kept] + admitted
    expected = list(running)
    for preempted in shown - kept:
        expected.remove(preempted)
    assert restored(running, frozenset(shown), scheduled) == expected + admitted


@settings(max_examples=60)
@given(
    letters=st.lists(st.sampled_from("PD"), min_size=1, max_size=6),
    num_waiting=st.integers(0, 3),
    num_free=st.integers(0, 45),
    budget=st.integers(1, 800),
    max_new=st.none() | st.integers(0, 3),
    order=st.sampled_from(RunningOrder),
    policy=st.sampled_from(["fcfs", "priority"]),
    data=st.data(),
)
def test_whatever_is_planned_nobody_is_lost_and_who_is_hidden_is_left_alone(
    letters: list[str],
    num_waiting: int,
    num_free: int,
    budget: int,
    max_new: int | None,
    order: RunningOrder,
    policy: str,
    data: st.DataObject,
) -> None:
    loop = lined_up(" ".join(letters), scheduling_policy=policy)
    waiting_for(loop, num_waiting)
    leave_free(loop, num_free)
    scheduler = loop.scheduler
    if "D" not in letters:
        order = RunningOrder.UNCHANGED  # no plan asks for another one
    decodes = [r.request_id for r in scheduler.running if not r.is_prefill_chunk]
    skipped = data.draw(st.sets(st.sampled_from(decodes)) if decodes else st.just(set()))
    before, everybody, as_set = names(scheduler.running), set(scheduler.requests), levers(scheduler)
    follow(
        loop,
        skipped=sorted(skipped),
        token_budget=budget,
        chunks=SOME,
        max_new_prefills=max_new,
        order=order,
    )
    running, waiting = names(scheduler.running).split(), names(scheduler.waiting).split()
    old = [name for name in running if name in before.split()]
    assert old == [name for name in before.split() if name in old]
    assert running[: len(old)] == old
    assert sorted(running + waiting) == sorted(everybody)
    assert skipped <= set(old)
    assert levers(scheduler) == as_set
