"""What requests were promised, as read from vLLM's real schedulers."""

from collections.abc import Iterator
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.request import RequestStatus

from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.state import Due, Outlook
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.scheduler.promises import Promises

OURS = [SarathiScheduler, AsyncSarathiScheduler]
TPOT = {"tpot_slo_ms": 100}
STEP_S = 0.02


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as made:
        yield made


def promises(loop: SchedulerLoop) -> Promises:
    found: Promises = loop.scheduler._promises
    return found


def step(loop: SchedulerLoop, clock: Clock, num: int = 1, step_s: float = STEP_S) -> None:
    for _ in range(num):
        clock.now_s += step_s
        loop.step()


def decoding(
    clock: Clock, ours: type = SarathiScheduler, *asked: dict[str, Any], **options: Any
) -> SchedulerLoop:
    """A loop with a decode for each of the objectives."""
    loop = SchedulerLoop(ours, options.pop("settings", TPOT), **options)
    for i, extra_args in enumerate(asked):
        loop.add(f"r{i}", 20, max_tokens=500, extra_args=extra_args)
    step(loop, clock, 4)
    return loop


def due(loop: SchedulerLoop, paused_s: float = 0.0) -> Due:
    """What was promised to all that decode, for a step that begins 1 ms from now."""
    scheduler = loop.scheduler
    begin_s = scheduler.step_observer.outlook.begin_s + 0.001
    return promises(loop).due(decodes(loop), (), Outlook(begin_s, paused_s=paused_s))


def decodes(loop: SchedulerLoop) -> list[Any]:
    """Requests that decode and whose last token is not on its way."""
    return [
        request
        for request in loop.scheduler.running
        if not request.is_prefill_chunk
        and request.num_output_tokens + request.num_output_placeholders < request.max_tokens
    ]


asked = st.sampled_from(
    [
        {},
        {"qos": "batch"},
        {"qos": "interactive"},
        {"tpot_slo_ms": 30},
        {"tbt_slo_ms": 50, "qos": "batch"},
        {"ttft_slo_ms": 60},
        {"ttft_slo_ms": 60, "tpot_slo_ms": 20},
        {"e2e_slo_ms": 900},
    ]
)
MS_OF = {"interactive": (2000, 50, None), "batch": (None, None, None), None: (None, 100, None)}


def paces_s(extra_args: dict[str, Any]) -> tuple[float, float, float]:
    """First token, mean pace and longest gap that these objectives promise, in seconds."""
    ttft, tpot, tbt = MS_OF[extra_args.get("qos")]
    ttft = extra_args.get("ttft_slo_ms", ttft)
    tpot = extra_args.get("tpot_slo_ms", tpot)
    tbt = extra_args.get("tbt_slo_ms", tbt)
    stall = min(10 * tpot if tpot else inf, tbt or inf)
    return tuple(1e-3 * (ms or inf) for ms in (ttft, tpot, stall))  # type: ignore[return-value]


def brute_force_due_s(
    loop: SchedulerLoop,
    request: Any,
    extra_args: dict[str, Any],
    came_s: list[float],
    begin_s: float,
) -> tuple[float, float, float]:
    """When a decode's next token is due, its pace, and when that token is wanted.

    From the times of all its tokens.
    """
    ttft_s, tpot_s, stall_s = paces_s(extra_args)
    flying = sum(
        len(answer.sampled_token_ids[i]) > 0
        for _, answer in loop.queue
        if (i := answer.req_id_to_index.get(request.request_id)) is not None
    )
    if not came_s:
        return begin_s + min(tpot_s, stall_s), min(tpot_s, stall_s), inf
    answer = promises(loop).answers.begun[request.request_id]
    wanted_tpot_s = inf
    if "e2e_slo_ms" in extra_args:
        is_lost = answer.is_lost
        left_s = request.arrival_time + 1e-3 * extra_args["e2e_slo_ms"] - came_s[0]
        wanted_tpot_s = max(left_s, 0.0) / answer.num_expected
    else:
        due_s = [came_s[0] + i * tpot_s if i else came_s[0] for i in range(len(came_s))]
        is_lost = came_s[0] > request.arrival_time + ttft_s + 1e-9
        is_lost |= any(t > at + stall_s + 1e-9 for t, at in zip(came_s, due_s, strict=True))
    num_tokens = len(came_s) + flying
    if is_lost:
        wanted_tpot_s = min(wanted_tpot_s, tpot_s)
    wanted_s = came_s[0] + num_tokens * wanted_tpot_s if wanted_tpot_s < inf else inf
    next_s = (begin_s if flying else came_s[-1]) + stall_s
    if is_lost:
        return next_s, stall_s, wanted_s
    by_pace_s = came_s[0] + num_tokens * tpot_s if tpot_s < inf else inf
    return min(next_s, by_pace_s), min(tpot_s, stall_s), wanted_s


loads = st.lists(
    st.tuples(st.integers(0, 8), st.integers(1, 300), st.integers(1, 20), asked),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(
    loads,
    st.sampled_from(OURS),
    st.sampled_from([30, 200]),
    st.lists(st.sampled_from([0.0113, 0.0537, 0.4171]), min_size=5, max_size=5),
)
def test_what_is_due_is_the_earliest_over_all_decodes_those_in_flight_included(
    load: list[tuple[int, int, int, dict[str, Any]]],
    ours: type,
    num_blocks: int,
    steps_s: list[float],
) -> None:
    asks = {f"r{i}": extra_args for i, (*_, extra_args) in enumerate(load)}
    came_s: dict[str, list[float]] = {name: [] for name in asks}
    with virtual_time() as clock:
        loop = SchedulerLoop(ours, TPOT, num_blocks=num_blocks)
        promises(loop).step_time = StepTimeModel()  # knows of no pace that is too tight
        for now in count():
            for i, (at, num_prompt, num_output, extra_args) in enumerate(load):
                if at == now:
                    loop.add(f"r{i}", num_prompt, num_output, extra_args=extra_args)
            step(loop, clock, step_s=steps_s[now % 5])
            for name, tokens in loop.outputs.items():
                came_s[name] += [clock.now_s] * (len(tokens) - len(came_s[name]))
            begin_s = loop.scheduler.step_observer.outlook.begin_s + 0.001
            each = [
                brute_force_due_s(loop, r, asks[r.request_id], came_s[r.request_id], begin_s)
                for r in decodes(loop)
            ]
            ours_due = due(loop)
            due_s, pace_s, wanted_s = map(min, zip(*each, strict=True)) if each else (inf, inf, inf)
            assert ours_due.in_s == pytest.approx(due_s - begin_s, abs=1e-6)
            assert ours_due.pace_s == pace_s
            assert ours_due.wanted_in_s == pytest.approx(wanted_s - begin_s, abs=1e-6)
            if now > 8 and not loop.scheduler.has_unfinished_requests():
                break
        loop.step()
    assert not promises(loop).answers.begun


@pytest.mark.parametrize("ours", OURS)
def test_each_request_is_promised_what_it_asks(ours: type, clock: Clock) -> None:
    loop = decoding(clock, ours, {}, {"tpot_slo_ms": 30}, {"qos": "batch"})
    found = [promises(loop).promise(r).tpot_s for r in loop.scheduler.running]
    assert found == [0.1, 0.03, inf]
    assert due(loop)[1] == 0.03


@pytest.mark.parametrize(
    "nonsense",
    [
        {"tpot_slo_ms": "fast"},
        {"tpot_slo_ms": -1},
        {"tpot_slo_ms": float("nan")},
        {"tpot_slo_ms": 2**63},
        {"tpot_slo_ms": {"a": []}},
        {"qos": ["interactive"]},
        {"qos": "no such class"},
        {"importance": True},
        {"importance": 10**9},
        {"unknown": object()},
        {3: 4},
    ],
)
def test_nonsense_that_reaches_the_engine_is_no_objective(
    nonsense: dict[Any, Any], clock: Clock
) -> None:
    loop = decoding(clock, SarathiScheduler, nonsense)
    (request,) = loop.scheduler.running
    assert promises(loop).promise(request) == promises(loop).default
    loop.run()


def test_a_broken_promise_falls_back_to_the_derived_gap_objective(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {"tpot_slo_ms": 30}, settings={})
    assert not due(loop)[2]
    step(loop, clock, 1, step_s=5.0)
    step(loop, clock, 1)
    assert due(loop)[1:3] == (0.3, True)


def test_without_objectives_no_token_is_followed(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {}, {}, settings={})
    loop.add("next", 20, 5)
    assert not promises(loop).answers.begun
    assert due(loop) == Due(inf, inf, has_auto=True)
    assert promises(loop).company() is None


def test_a_gap_objective_for_all_needs_no_token_to_be_followed(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {}, settings={"tbt_slo_ms": 50})
    assert not promises(loop).answers.begun
    assert due(loop, paused_s=0.02)[:2] == pytest.approx((0.03, 0.05))


def test_one_request_that_asks_something_takes_nothing_from_those_that_run(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {}, settings={"tbt_slo_ms": 50})
    loop.add("slow", 20, 500, extra_args={"tpot_slo_ms": 900, "tbt_slo_ms": 80_000_000})
    step(loop, clock, 3)
    assert len(loop.scheduler.running) == 2
    assert due(loop).in_s <= 0.05 + 1e-6
    assert due(loop).pace_s == 0.05


def test_a_broken_promise_of_a_pace_that_nobody_can_keep_binds_nobody(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {"ttft_slo_ms": 2, "tpot_slo_ms": 2}, settings={})
    ask = promises(loop)
    assert ask.answers.begun["r0"].is_lost
    assert due(loop).wanted_in_s == inf  # steps take 20 ms
    ask.step_time = StepTimeModel()
    assert due(loop).wanted_in_s < inf


@pytest.mark.parametrize("ours", OURS)
def test_an_aborted_request_is_forgotten(ours: type, clock: Clock) -> None:
    loop = decoding(clock, ours, {}, {"tpot_slo_ms": 30})
    assert set(promises(loop).answers.begun) == {"r0", "r1"}
    loop.scheduler.finish_requests("r1", RequestStatus.FINISHED_ABORTED)
    step(loop, clock, 3)
    assert set(promises(loop).answers.begun) == {"r0"}
    assert due(loop)[1] == 0.1


def test_a_request_that_waits_and_is_aborted_leaves_the_queue(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, TPOT, max_num_seqs=1)
    for name in ("a", "b", "c"):
        loop.add(name, 20, 8)
    step(loop, clock)
    loop.scheduler.finish_requests("b", RequestStatus.FINISHED_ABORTED)
    assert [request.request_id for request in loop.scheduler.waiting] == ["c"]
    loop.run()
    assert [len(tokens) for tokens in loop.outputs.values()] == [8, 0, 8]


@pytest.mark.parametrize("ours", OURS)
def test_a_name_that_is_used_again_begins_anew(ours: type, clock: Clock) -> None:
    loop = decoding(clock, ours, {"tpot_slo_ms": 30})
    loop.scheduler.finish_requests("r0", RequestStatus.FINISHED_ABORTED)
    step(loop, clock, 2)
    loop.add("r0", 20, 50)
    step(loop, clock, 4)
    answer = promises(loop).answers.begun["r0"]
    assert answer.pace_s == 0.1
    assert answer.num_tokens < 5


@pytest.mark.parametrize("ours", OURS)
def test_a_preempted_request_keeps_its_answer(ours: type, clock: Clock) -> None:
    loop = decoding(clock, ours, {}, {"tpot_slo_ms": 30})
    before = dict(promises(loop).answers.begun)
    loop.scheduler.reset_prefix_cache(reset_running_requests=True)
    step(loop, clock, 4)
    after = promises(loop).answers.begun
    assert {name: id(answer) for name, answer in after.items()} == {
        name: id(answer) for name, answer in before.items()
    }
    assert [len(loop.outputs[name]) for name in after] == [a.num_tokens for a in after.values()]


@pytest.mark.parametrize("ours", OURS)
def test_company_has_the_tightest_pace_of_those_that_run_and_one_that_waits_its_own(
    ours: type, clock: Clock
) -> None:
    loop = decoding(clock, ours, {}, {"tpot_slo_ms": 60}, max_num_seqs=2)
    ask = promises(loop)
    assert ask.company() is None  # nobody waits
    loop.add("next", 20, 8, extra_args={"ttft_slo_ms": 500, "tpot_slo_ms": 40})
    company, request = ask.company(), loop.scheduler.requests["next"]
    assert company is not None
    assert (company.pace_s, ask.pace_s(request)) == (0.06, 0.04)
    clock.now_s += 1.0
    assert ask.expire()  # its promise is broken before it began
    assert ask.pace_s(request) == inf


def test_one_that_waits_and_asks_nothing_of_its_first_token_has_its_pace(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {}, max_num_seqs=1)
    loop.add("next", 20, 8, extra_args={"tpot_slo_ms": 40})
    assert promises(loop).pace_s(loop.scheduler.requests["next"]) == 0.04


@pytest.mark.parametrize(("importance", "outranks"), [(5, True), (0, False), (-5, False)])
def test_company_says_whether_the_next_is_more_important_than_one_that_runs(
    importance: int, outranks: bool, clock: Clock
) -> None:
    loop = SchedulerLoop(SarathiScheduler, {**TPOT, "client_objectives": ["importance"]})
    for name, its in (("a", 0), ("b", 9)):
        loop.add(name, 20, 50, extra_args={"importance": its})
    step(loop, clock, 3)
    loop.add("next", 20, 8, extra_args={"importance": importance})
    company = promises(loop).company()
    assert company is not None
    assert company.is_outranked is outranks


@pytest.mark.parametrize("ours", OURS)
def test_company_has_the_mean_prefill_unless_a_batch_is_owed(ours: type, clock: Clock) -> None:
    loop = decoding(clock, ours, {}, max_num_seqs=1)
    loop.add("next", 20, 8, extra_args={"ttft_slo_ms": 500})
    ask, order = promises(loop), promises(loop).order
    company = ask.company()
    assert company is not None
    assert order is not None
    assert company.mean_prefill == order.mean_prefill > 0
    clock.now_s += 1.0
    assert ask.expire()
    order.owed.num_tokens = order.owed.ageing * order.owed.batch_tokens
    company = ask.company()
    assert company is not None
    assert company.mean_prefill == 0


def test_company_has_no_pace_where_none_was_promised(clock: Clock) -> None:
    loop = decoding(clock, SarathiScheduler, {"qos": "batch"}, max_num_seqs=1)
    loop.add("next", 20, 8, extra_args={"qos": "batch"})
    company = promises(loop).company()
    assert company is not None
    assert company.pace_s == inf
    loop = SchedulerLoop(SarathiScheduler, {})
    loop.add("next", 20, 8)
    assert promises(loop).company() is None


def test_company_has_the_pace_of_decodes_in_other_micro_batches(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, TPOT, in_flight=2, pipeline_parallel_size=2)
    loop.add("fast", 20, 500, extra_args={"tpot_slo_ms": 30})
    step(loop, clock, 5)
    while loop.scheduler.step_observer.outlook.begin_s > clock.now_s:
        step(loop, clock)
    loop.queue.append((output := loop.schedule(), loop._run(output)))
    assert list(output.num_scheduled_tokens) == ["fast"]
    loop.add("next", 20, 8, extra_args={"ttft_slo_ms": 5000})
    loop.schedule()
    _, snapshot = loop.scheduler.step_observer.last
    assert not snapshot.state.decodes.requests  # in flight
    assert snapshot.state.company.pace_s == 0.03


@pytest.mark.parametrize("mine", [{}, TPOT])
def test_decodes_in_other_micro_batches_bound_this_one(mine: dict[str, Any], clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, mine, in_flight=2, pipeline_parallel_size=2)
    loop.add("decode", 20, 500)
    step(loop, clock, 5)
    while loop.scheduler.step_observer.outlook.begin_s > clock.now_s:
        step(loop, clock)
    loop.queue.append((output := loop.schedule(), loop._run(output)))
    assert list(output.num_scheduled_tokens) == ["decode"]
    loop.add("prompt", 5000, 8)
    loop.schedule()
    plan, _ = loop.scheduler.step_observer.last
    assert plan.objective_s is not None
