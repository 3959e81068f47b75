"""A prefix that several prompts share is computed once, and nobody waits longer for that."""

from functools import partial
from typing import Any

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.metrics import sample
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.scheduler.kv_blocks import find_computing

BOTH = (SarathiScheduler, AsyncSarathiScheduler)
PREFIX = [i % 997 for i in range(6000)]
NEVER_DUE = {"qos": "batch"}


def caching(
    scheduler_class: type, settings: dict[str, Any] | None = None, **options: Any
) -> SchedulerLoop:
    loop = SchedulerLoop(scheduler_class, settings, enable_prefix_caching=True, **options)
    return loop.with_decodes()


def num_prefilled(loop: SchedulerLoop) -> int:
    """Prefill tokens until all are done."""
    num_tokens = 0
    while loop.scheduler.has_unfinished_requests():
        begins = {name for name, r in loop.scheduler.requests.items() if not r.num_output_tokens}
        output = loop.step()
        tokens = output.num_scheduled_tokens if output else {}
        num_tokens += sum(tokens[name] for name in tokens.keys() & begins)
    return num_tokens


@pytest.mark.parametrize("scheduler_class", BOTH)
def test_it_is_computed_once_by_prompts_that_come_together(scheduler_class: type) -> None:
    loop = caching(scheduler_class, num_blocks=4000, long_prefill_token_threshold=256)
    for i in range(6):
        loop.add(f"turn{i}", prompt=[*PREFIX, *range(i, 100 + i)], max_tokens=4)
    assert num_prefilled(loop) < len(PREFIX) + 6 * 150
    assert all(len(loop.outputs[f"turn{i}"]) == 4 for i in range(6))


def test_in_order_of_arrival_vllm_decides_as_before() -> None:
    batches = []
    for scheduler_class, settings in (
        (Scheduler, None),
        (SarathiScheduler, {"order": "fcfs", "tbt_slo_ms": None, "ttft_slo_ms": None}),
    ):
        loop = caching(scheduler_class, settings, long_prefill_token_threshold=512)
        for i in range(3):
            loop.add(f"turn{i}", prompt=[*PREFIX, i], max_tokens=4, arrival_time=float(i))
        loop.run()
        batches.append(loop.batches)
    assert batches[0] == batches[1]


@pytest.mark.parametrize(
    ("settings", "options"),
    [({"shed": True, "ttft_slo_ms": 1e6}, {}), ({}, {"scheduling_policy": "priority"})],
    ids=["shed", "priority"],
)
def test_nobody_waits_where_the_late_are_refused_or_vllms_priorities_rule(
    settings: dict[str, Any], options: dict[str, Any]
) -> None:
    loop = caching(SarathiScheduler, settings, long_prefill_token_threshold=256, **options)
    for i in range(2):
        loop.add(f"turn{i}", prompt=[*PREFIX, i])
    for _ in range(10):
        loop.step()
    assert not loop.scheduler.waiting


def test_those_behind_one_that_waits_for_its_prefix_go_first() -> None:
    loop = caching(SarathiScheduler, long_prefill_token_threshold=256)
    for name in ("first", "second"):
        loop.add(name, prompt=[*PREFIX, len(name)], arrival_time=1.0, extra_args=NEVER_DUE)
    loop.step()
    loop.add("third", prompt=[7] * 6500, arrival_time=2.0, extra_args=NEVER_DUE)
    for _ in range(10):
        loop.step()
    assert [r.request_id for r in loop.scheduler.waiting] == ["second"]


def test_one_that_computes_it_is_served_no_later_than_who_waits_for_it() -> None:
    loop = caching(SarathiScheduler, {"ttft_slo_ms": 1e6}, max_num_batched_tokens=512)
    loop.add("never due", prompt=[*PREFIX, 1], extra_args=NEVER_DUE)
    loop.step()
    for i in range(8):
        loop.add(f"in time{i}", prompt=[i] * 7000, max_tokens=1)
    due_first = {"ttft_slo_ms": 1e5}
    urgent = loop.add("urgent", prompt=[*PREFIX, 2], max_tokens=1, extra_args=due_first)
    for _ in range(40):  # the others take more than 100
        loop.step()
    assert urgent.num_output_tokens


def test_steps_in_which_it_keeps_others_waiting_are_counted() -> None:
    loop = caching(SarathiScheduler)
    for i in range(2):
        loop.add(f"turn{i}", prompt=[*PREFIX, i])
    loop.run()
    blocked = partial(sample, loop, "admission_blocked_steps_total", qos="default")
    assert blocked(reason="shared_prefix") > 1


def test_only_who_has_yet_to_compute_the_next_block_is_waited_for() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    running = loop.add("running", prompt=[5] * 160)
    request = loop.add("waits", prompt=[5] * 160 + [6] * 40)
    other = loop.add("other", prompt=[6] * 160)
    find = partial(find_computing, loop.scheduler, request)
    assert [find(num, [other, running]) for num in (0, 144, 160)] == [running, running, None]
    running.num_computed_tokens = 64
    assert [find(num, [running]) for num in (48, 64)] == [None, running]
    assert find(64, []) is None


def test_the_last_token_is_computed_by_each() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    running, request = (loop.add(name, prompt=[5] * 160) for name in ("running", "waits"))
    assert find_computing(loop.scheduler, request, 128, [running]) is running
    assert find_computing(loop.scheduler, request, 144, [running]) is None


def test_nobody_waits_where_prefixes_are_not_cached() -> None:
    loop = SchedulerLoop(SarathiScheduler)
    running, request = (loop.add(name, prompt=[5] * 160) for name in ("running", "waits"))
    assert find_computing(loop.scheduler, request, 0, [running]) is None
