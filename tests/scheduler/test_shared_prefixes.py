"""A prefix that several prompts share is computed once, and nobody waits longer for that."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import KVCacheGroupSpec, SlidingWindowSpec

from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.scheduler import promises
from vllm_sarathi.scheduler.kv_blocks import find_computing

BOTH = (SarathiScheduler, AsyncSarathiScheduler)
PREFIX = [i % 997 for i in range(6000)]
NEVER_DUE = {"qos": "batch"}


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    with virtual_time() as clock:
        yield clock


def caching(
    scheduler_class: type, settings: dict[str, Any] | None = None, **options: Any
) -> SchedulerLoop:
    loop = SchedulerLoop(scheduler_class, settings, enable_prefix_caching=True, **options)
    return loop.with_decodes()


def step(loop: SchedulerLoop, clock: Clock) -> Counter[str]:
    """A step of 2 ms and 20 us a token; what of each request it ran."""
    output = loop.step()
    tokens = Counter(output.num_scheduled_tokens if output else {})
    clock.now_s += 0.002 + 2e-5 * tokens.total()
    return tokens


def num_prefilled(loop: SchedulerLoop, clock: Clock) -> int:
    """Prefill tokens until all are done."""
    num_tokens = 0
    while loop.scheduler.has_unfinished_requests():
        begins = {name for name, r in loop.scheduler.requests.items() if not r.num_output_tokens}
        tokens = step(loop, clock)
        num_tokens += sum(tokens[name] for name in begins)
    return num_tokens


@pytest.mark.parametrize("scheduler_class", BOTH)
def test_it_is_computed_once_though_who_waits_for_it_is_due_first(
    scheduler_class: type, clock: Clock
) -> None:
    loop = caching(scheduler_class, num_blocks=4000)
    loop.add("never due", prompt=[*PREFIX, 1], extra_args=NEVER_DUE)
    step(loop, clock)
    for i in range(5):
        loop.add(f"due{i}", prompt=[*PREFIX, *range(100 - i)], extra_args={"qos": "interactive"})
        step(loop, clock)
    assert num_prefilled(loop, clock) < len(PREFIX) + 6 * 120
    assert {len(loop.outputs[f"due{i}"]) for i in range(5)} == {8}


def test_who_computes_it_is_served_no_later_than_who_waits_for_it(clock: Clock) -> None:
    loop = caching(SarathiScheduler, {"ttft_slo_ms": 1e6}, max_num_batched_tokens=512)
    loop.add("never due", prompt=[*PREFIX, 1], extra_args=NEVER_DUE)
    step(loop, clock)
    for i in range(8):
        loop.add(f"in time{i}", prompt=[i] * 7000, max_tokens=1)
    urgent = loop.add("urgent", prompt=[*PREFIX, 2], extra_args={"ttft_slo_ms": 1e5})
    for _ in range(40):  # the others take more than 100
        step(loop, clock)
    assert urgent.num_output_tokens


def lent(loop: SchedulerLoop, keeps_pace: bool) -> bool:
    """Whether anybody is lent a rank where requests run at a pace that one more keeps or breaks."""
    ours = loop.scheduler._promises
    ours.lend_ranks(ours.company(), lambda _: keeps_pace)
    return bool(ours.order._lent)


@pytest.mark.parametrize("keeps_pace", [True, False])
def test_one_that_does_not_fit_the_pace_lends_nothing(keeps_pace: bool, clock: Clock) -> None:
    loop = caching(SarathiScheduler, {"ttft_slo_ms": 1e6, "tpot_slo_ms": 50.0})
    loop.add("runs", prompt=[*PREFIX, 1])
    step(loop, clock)
    loop.add("waits", prompt=[*PREFIX, 2])
    assert lent(loop, keeps_pace) == keeps_pace


def test_one_that_vllm_passes_over_lends_nothing(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    loop = caching(SarathiScheduler)
    loop.add("runs", prompt=[*PREFIX, 1])
    step(loop, clock)
    waits = loop.add("waits", prompt=[*PREFIX, 2])
    assert lent(loop, keeps_pace=True)
    loop.scheduler._promises.expire()
    monkeypatch.setattr(promises, "passed_over", lambda _: {waits})
    assert not lent(loop, keeps_pace=True)


def test_prompts_of_which_several_fit_a_batch_are_still_admitted_together() -> None:
    batches = []
    for scheduler_class in (Scheduler, SarathiScheduler):
        loop = caching(scheduler_class, {"tbt_slo_ms": None})
        for i in range(40):
            loop.add(f"r{i}", prompt=[i // 2] * 100)
        loop.step()
        loop.step()
        batches.append(loop.batches)
    assert batches[0] == batches[1]


def test_only_who_computes_the_next_block_is_waited_for() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    running = loop.add("running", prompt=[5] * 160)
    request = loop.add("waits", prompt=[5] * 160 + [6] * 40)
    other = loop.add("other", prompt=[6] * 160)
    found = []
    for running.num_computed_tokens in (0, 15, 16):  # nothing of it is in the cache
        found.append(find_computing(loop.scheduler, request, [other, running]))
    assert found == [running, running, None]


def test_who_computes_again_what_the_cache_holds_is_not_waited_for() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    loop.add("first", prompt=[5] * 160, max_tokens=1)
    loop.run()
    again, request = (loop.add(name, prompt=[5] * 320) for name in ("again", "waits"))
    assert find_computing(loop.scheduler, request, [again]) is None
    again.num_computed_tokens = 160
    assert find_computing(loop.scheduler, request, [again]) is again


def test_the_last_token_is_computed_by_each() -> None:
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=True)
    running, request = (loop.add(name, prompt=[5] * 16) for name in ("running", "waits"))
    assert find_computing(loop.scheduler, request, [running]) is None


@pytest.mark.parametrize("caches", [False, True])
def test_nobody_is_waited_for_where_a_cache_holds_no_whole_prefixes(caches: bool) -> None:
    window = SlidingWindowSpec(
        block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32, sliding_window=128
    )
    groups = [KVCacheGroupSpec(["window"], window)] * caches
    loop = SchedulerLoop(SarathiScheduler, enable_prefix_caching=caches, more_groups=groups)
    running, request = (loop.add(name, prompt=[5] * 160) for name in ("running", "waits"))
    assert find_computing(loop.scheduler, request, [running]) is None
