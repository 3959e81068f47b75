"""What objectives do to traffic, over vLLM's real schedulers in virtual time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.owed import AGEING
from vllm_sarathi.scheduler.vllm_versions import second_waiting_queue

BATCH, VIP = {"qos": "batch"}, {"qos": "vip"}
CLASSES = {"qos_classes": {"vip": {"importance": 5}}}
TTFT_S = 1.0


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as made:
        yield made


@dataclass(frozen=True)
class Arrival:
    """A request, and when it comes."""

    at_s: float
    num_prompt: int
    num_output: int = 1
    extra_args: dict[str, Any] | None = None


def serve(loop: SchedulerLoop, clock: Clock, load: dict[str, Arrival]) -> dict[str, list[float]]:
    """Run a load to its end at 10 ms a step and 0.1 ms a token.

    Returns:
        For each request, when its tokens came after its arrival, in order of its first token.
    """
    began_s = clock.now_s
    left = dict(sorted(load.items(), key=lambda item: item[1].at_s))
    came_s: dict[str, list[float]] = {}
    while left or loop.scheduler.has_unfinished_requests():
        for name, one in list(left.items()):
            if began_s + one.at_s <= clock.now_s:
                loop.add(
                    name,
                    one.num_prompt,
                    one.num_output,
                    extra_args=one.extra_args,
                    arrival_time=began_s + one.at_s,
                )
                del left[name]
        output = loop.schedule()
        clock.now_s += 0.010 + 0.0001 * output.total_num_scheduled_tokens
        loop._answer(output, loop._run(output))
        for name in output.num_scheduled_tokens:
            num_new = len(loop.outputs[name]) - len(came_s.get(name, ()))
            if num_new:
                after_s = clock.now_s - began_s - load[name].at_s
                came_s.setdefault(name, []).extend([after_s] * num_new)
    return came_s


def overload(num: int = 200, **extra: Any) -> dict[str, Arrival]:
    """Prompts that take 50 ms each, and come every 30 ms."""
    return {f"r{i}": Arrival(0.03 * i, 400, **extra) for i in range(num)}


def num_in_time(came_s: dict[str, list[float]]) -> int:
    return sum(times[0] <= TTFT_S for times in came_s.values())


def small(settings: dict[str, Any], **options: Any) -> SchedulerLoop:
    return SchedulerLoop(SarathiScheduler, settings, max_num_batched_tokens=512, **options)


def test_in_overload_those_that_are_late_step_aside_for_those_that_can_be_in_time(
    clock: Clock,
) -> None:
    objective = {"ttft_slo_ms": 1e3 * TTFT_S, "tbt_slo_ms": None}
    by_deadline = serve(small(objective), clock, overload())
    first_come = serve(small({**objective, "order": "fcfs"}), clock, overload())
    assert num_in_time(by_deadline) > num_in_time(first_come) + 20
    assert len(by_deadline) == len(first_come) == 200


def test_in_overload_nobody_is_late_by_the_step_that_its_prefill_begins_in(clock: Clock) -> None:
    came_s = serve(small({"ttft_slo_ms": 1e3 * TTFT_S, "tbt_slo_ms": None}), clock, overload())
    assert sum(TTFT_S < times[0] <= TTFT_S + 0.12 for times in came_s.values()) <= 5
    assert num_in_time(came_s) > 110


def test_in_overload_prompts_far_shorter_than_a_batch_are_in_time_as_others_are(
    clock: Clock,
) -> None:
    objective = {"ttft_slo_ms": 1e3 * TTFT_S, "tbt_slo_ms": None}
    loop = SchedulerLoop(SarathiScheduler, objective, max_num_batched_tokens=2048)
    assert num_in_time(serve(loop, clock, overload(400))) > 180


def test_important_requests_are_in_time_in_twice_the_load(clock: Clock) -> None:
    load = overload(300)
    important = {name: Arrival(one.at_s, 400, 1, VIP) for name, one in load.items()}
    load |= {name: one for i, (name, one) in enumerate(important.items()) if i % 3 == 0}
    came_s = serve(small({"ttft_slo_ms": 1e3 * TTFT_S, "tbt_slo_ms": None, **CLASSES}), clock, load)
    late = [name for name in list(load)[::3] if came_s[name][0] > TTFT_S]
    assert not late
    assert len(came_s) == 300


def with_a_long_prompt(ttft_ms: float) -> dict[str, Arrival]:
    """One that takes 0.7 s alone, and short ones every 25 ms."""
    short = {f"short{i}": Arrival(0.05 + 0.025 * i, 50) for i in range(200)}
    return {"long": Arrival(0.0, 6000, 1, {"ttft_slo_ms": ttft_ms}), **short}


def test_a_long_prompt_that_runs_makes_way_for_short_ones_and_is_in_time(clock: Clock) -> None:
    came_s = serve(small({"ttft_slo_ms": 300, "tbt_slo_ms": None}), clock, with_a_long_prompt(3000))
    assert max(times[0] for name, times in came_s.items() if name != "long") <= 0.3
    assert came_s["long"][0] <= 3.0


def test_a_long_prompt_that_is_late_already_still_has_its_turn(clock: Clock) -> None:
    load = with_a_long_prompt(100)
    load |= {f"more{i}": Arrival(0.05 + 0.025 * i, 200) for i in range(200)}
    came_s = serve(small({"ttft_slo_ms": 2000, "tbt_slo_ms": None}), clock, load)
    num_before = list(came_s).index("long")
    num_batches = -(-6000 // 512)
    num_tokens = sum(load[name].num_prompt for name in list(came_s)[:num_before])
    assert num_tokens <= (num_batches + 1) * AGEING * 512


def chunk_beside(clock: Clock, extra_args: dict[str, Any] | None) -> int:
    """Prefill tokens in the largest batch beside decodes that ask so much."""
    loop = SchedulerLoop(SarathiScheduler, {"tbt_slo_ms": 40})
    decodes = {f"decode{i}": Arrival(0.0, 20, 200, extra_args) for i in range(4)}
    prompts = {f"prompt{i}": Arrival(0.5, 900, 1, BATCH) for i in range(8)}
    serve(loop, clock, {**decodes, **prompts})
    mixed = [batch.split() for batch in loop.batches if batch.startswith("D4 P")]
    return max(sum(int(chunk[1:]) for chunk in chunks[1:]) for chunks in mixed)


def test_a_gap_objective_bounds_the_batch(clock: Clock) -> None:
    assert chunk_beside(clock, None) <= 300


def test_batch_class_decodes_do_not_shrink_the_budget(clock: Clock) -> None:
    assert chunk_beside(clock, BATCH) > 900


def test_batch_class_decodes_do_not_starve_beside_prompts(clock: Clock) -> None:
    loop = small({"ttft_slo_ms": 1000, "tpot_slo_ms": 50})
    decodes = {f"batch{i}": Arrival(0.0, 20, 100, BATCH) for i in range(4)}
    came_s = serve(loop, clock, {**decodes, **overload(200, num_output=2)})
    for name in decodes:
        times = came_s[name]
        assert max(b - a for a, b in pairwise(times)) <= 0.5


def test_a_batch_class_prompt_is_admitted_within_its_bound_whatever_comes(clock: Clock) -> None:
    load = {f"r{i}": Arrival(0.02 * i, 300) for i in range(700)}
    load |= {f"batch{i}": Arrival(0.1, 300, 1, BATCH) for i in range(3)}
    came_s = serve(small({"ttft_slo_ms": 60_000, "tbt_slo_ms": None}), clock, load)
    at = [list(came_s).index(f"batch{i}") for i in range(3)]
    num_before = sum(one.at_s < 0.1 for one in load.values())
    num_each = (AGEING + 2) * 512 / 300
    assert all(place <= num_before + (i + 1) * num_each for i, place in enumerate(at))
    assert at[2] > AGEING  # they did step aside


@pytest.mark.parametrize("is_async", [False, True])
def test_requests_that_vllm_passes_over_are_admitted_in_order_once_they_can(
    is_async: bool, clock: Clock
) -> None:
    ours = AsyncSarathiScheduler if is_async else SarathiScheduler
    loop = SchedulerLoop(ours, {"ttft_slo_ms": 1000})
    blocked = [loop.add(f"blocked{i}", 20, 4) for i in range(3)]
    for request in blocked:
        request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    for i in range(2 * AGEING):
        loop.add(f"r{i}", 20, 1)
        clock.now_s += 0.01
        loop.step()
    assert [*second_waiting_queue(loop.scheduler), *loop.scheduler.waiting][:3] == blocked
    for request in blocked:
        request.status = RequestStatus.WAITING
    loop.run()
    assert all(loop.outputs.values())


@pytest.mark.parametrize("mine", [{}, {"ttft_slo_ms": 300, "tpot_slo_ms": 50}])
def test_first_come_first_served_reorders_nothing_whatever_is_asked(
    mine: dict[str, Any], clock: Clock
) -> None:
    load = {
        f"r{i}": Arrival(0.02 * i, 20 + 370 * (i % 4), 3, [None, BATCH, VIP][i % 3])
        for i in range(60)
    }
    came_s = serve(small({**mine, **CLASSES, "order": "fcfs"}), clock, load)
    first_s = [load[name].at_s + came_s[name][0] for name in load]
    assert first_s == sorted(first_s)


OBJECTIVES = st.sampled_from(
    [
        None,
        {"ttft_slo_ms": 20},
        {"ttft_slo_ms": 500, "tpot_slo_ms": 15},
        {"tbt_slo_ms": 12},
        {"e2e_slo_ms": 300, "qos": "vip"},
        {"qos": "interactive"},
        BATCH,
    ]
)
SETTINGS = st.sampled_from(
    [
        {},
        {"order": "srpf"},
        {"order": "edf", "ttft_slo_ms": 100},
        {"tbt_slo_ms": 15, "max_stall_ms": 100},
        {"ttft_slo_ms": 50, "tpot_slo_ms": 20, "e2e_slo_ms": 900},
        {"preset": "stall-free", "token_budget": 64, "order": "hybrid"},
    ]
)
REQUESTS = st.tuples(
    st.integers(0, 15),  # step of arrival
    st.integers(1, 300),  # prompt
    st.integers(1, 12),  # output
    st.integers(0, 2),  # prefix group
    st.integers(0, 1),  # priority
    OBJECTIVES,
)


def tokens(
    kind: type, mine: dict[str, Any], load: list[Any], steps_s: list[float], **options: Any
) -> dict[str, list[int]]:
    """What each request gets, in steps that take so long."""
    with virtual_time() as clock:
        loop = SchedulerLoop(kind, {**mine, **CLASSES}, **options)
        for now in count():
            for i, (at, num_prompt, num_output, group, priority, asks) in enumerate(load):
                if at == now:
                    prompt = [group] * 40 * group + [i + j % 7 for j in range(num_prompt)]
                    loop.add(
                        f"r{i}",
                        prompt=prompt,
                        max_tokens=num_output,
                        priority=priority,
                        extra_args=asks,
                    )
            clock.now_s += steps_s[now % len(steps_s)]
            loop.step()
            if now > 15 and not loop.scheduler.has_unfinished_requests():
                break
            assert now < 3000
        loop.run()
    return loop.outputs


@settings(max_examples=60)
@given(
    st.lists(REQUESTS, min_size=1, max_size=10),
    SETTINGS,
    st.booleans(),
    st.sampled_from([30, 60, 400]),
    st.booleans(),
    st.sampled_from(["fcfs", "priority"]),
    st.sampled_from([[0.01], [0.005, 0.08], [0.3]]),
)
def test_every_request_gets_the_tokens_that_stock_gives_it_whatever_is_asked(
    load: list[Any],
    mine: dict[str, Any],
    is_async: bool,
    num_blocks: int,
    caches: bool,
    policy: str,
    steps_s: list[float],
) -> None:
    stock, ours = (
        (AsyncScheduler, AsyncSarathiScheduler) if is_async else (Scheduler, SarathiScheduler)
    )
    options = {
        "num_blocks": num_blocks,
        "enable_prefix_caching": caches,
        "scheduling_policy": policy,
        "max_num_batched_tokens": 256,
        "max_num_seqs": 4,
    }
    expected = tokens(stock, {}, load, steps_s, **options)
    assert tokens(ours, mine, load, steps_s, **options) == expected


@pytest.mark.parametrize("is_async", [False, True])
def test_what_runs_while_a_step_is_planned_counts_for_who_is_late(
    is_async: bool, clock: Clock
) -> None:
    ours = AsyncSarathiScheduler if is_async else SarathiScheduler
    order = SchedulerLoop(ours, {"ttft_slo_ms": 1000}).scheduler._promises.order
    assert order.num_ahead == 1 + is_async
