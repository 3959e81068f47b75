"""A prefix that several prompts share is computed once, and nobody waits longer for that."""

from collections import Counter
from functools import partial
from itertools import chain
from typing import Any

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.scheduler.kv_blocks import computing_prefix

BOTH = (SarathiScheduler, AsyncSarathiScheduler)
PREFIX = [i % 997 for i in range(6000)]
NEVER_DUE = {"qos": "batch"}


def caching(
    scheduler_class: type, settings: dict[str, Any] | None = None, **options: Any
) -> SchedulerLoop:
    loop = SchedulerLoop(scheduler_class, settings, enable_prefix_caching=True, **options)
    return loop.with_decodes()


def prefilled(loop: SchedulerLoop, most_steps: int = 10_000) -> Counter[str]:
    """Prefill tokens of each request, until all are done."""
    count = Counter[str]()
    for _ in range(most_steps):
        if not loop.scheduler.has_unfinished_requests():
            break
        chunks = {name for name, r in loop.scheduler.requests.items() if not r.num_output_tokens}
        output = loop.step()
        tokens = output.num_scheduled_tokens if output else {}
        count.update({name: n for name, n in tokens.items() if name in chunks})
    return count


@pytest.mark.parametrize("scheduler_class", BOTH)
def test_it_is_computed_once_though_all_who_share_it_come_at_once(scheduler_class: type) -> None:
    loop = caching(scheduler_class, {"tpot_slo_ms": 50.0}, num_blocks=4000)
    for i in range(6):
        loop.add(f"turn{i}", prompt=[*PREFIX, *range(i, 100 + i)], max_tokens=4)
    loop.add("other", 3000, max_tokens=4)
    counted = prefilled(loop)
    assert sum(n for name, n in counted.items() if name.startswith("turn")) < 6000 + 6 * 150
    assert all(len(tokens) == 4 for name, tokens in loop.outputs.items() if "turn" in name)


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
    assert loop.scheduler._recorder is not None
    samples = chain.from_iterable(
        family.samples for family in loop.scheduler._recorder.catalogue.registry.collect()
    )
    name = "vllm_sarathi:admission_blocked_steps_total"
    found = [s.value for s in samples if s.name == name and s.labels["reason"] == "prefix"]
    assert sum(found) > 1


def test_only_who_has_yet_to_compute_the_next_block_is_waited_for() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    running = loop.add("running", prompt=[5] * 160)
    request = loop.add("waits", prompt=[5] * 160 + [6] * 40)
    other = loop.add("other", prompt=[6] * 160)
    find = partial(computing_prefix, loop.scheduler, request)
    assert find(0, [other, running]) is running
    assert find(144, [other, running]) is running
    assert find(160, [other, running]) is None
    running.num_computed_tokens = 64
    assert find(48, [running]) is None
    assert find(64, [running]) is running
    assert find(64, []) is None


def test_the_last_token_is_computed_by_each() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    running, request = (loop.add(name, prompt=[5] * 160) for name in ("running", "waits"))
    assert computing_prefix(loop.scheduler, request, 128, [running]) is running
    assert computing_prefix(loop.scheduler, request, 144, [running]) is None


def test_nobody_waits_where_prefixes_are_not_cached() -> None:
    loop = SchedulerLoop(SarathiScheduler)
    running, request = (loop.add(name, prompt=[5] * 160) for name in ("running", "waits"))
    assert computing_prefix(loop.scheduler, request, 0, [running]) is None
