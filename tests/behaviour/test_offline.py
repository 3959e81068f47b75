"""Offline batches over vLLM's real schedulers, without an engine."""

from itertools import pairwise
from typing import Any

import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler

OFFLINE = {"preset": "offline"}
NUM_PREFIXES, PREFIX_TOKENS, NUM_EACH = 6, 160, 5


def prompts() -> dict[str, list[int]]:
    """Prompts with one of six prefixes of 160 tokens, and 20 of their own; prefixes alternate."""
    made = {}
    for i in range(NUM_EACH):
        for prefix in range(NUM_PREFIXES):
            made[f"{prefix}.{i}"] = [prefix + 1] * PREFIX_TOKENS + [100 + 10 * prefix + i] * 20
    return made


def loop_with(kind: type, settings: dict[str, Any] | None, **options: Any) -> SchedulerLoop:
    """A scheduler with all of the prompts waiting, and KV blocks for three of the prefixes."""
    chosen = {"num_blocks": 46, "max_num_seqs": 3, "enable_prefix_caching": True, **options}
    loop = SchedulerLoop(kind, settings, **chosen)
    for name, prompt in prompts().items():
        loop.add(name, prompt=prompt, max_tokens=4, arrival_time=0.0)
    return loop


def num_prefill_tokens(loop: SchedulerLoop) -> int:
    parts = loop.run().replace("|", " ").split()
    return sum(int(part[1:]) for part in parts if part.startswith("P"))


def order_of_admission(loop: SchedulerLoop) -> list[str]:
    found = list[str]()
    while loop.scheduler.has_unfinished_requests():
        output = loop.step()
        found += [new.req_id for new in output.scheduled_new_reqs] if output else []
    return found


@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
def test_requests_that_share_a_prefix_are_admitted_one_after_the_other(ours: type) -> None:
    admitted = order_of_admission(loop_with(ours, OFFLINE, in_flight=1))
    groups = [name.split(".")[0] for name in admitted]
    changes = sum(one != other for one, other in pairwise(groups))
    assert sorted(admitted) == sorted(prompts())
    assert changes == NUM_PREFIXES - 1


@pytest.mark.parametrize(
    ("stock", "ours"), [(Scheduler, SarathiScheduler), (AsyncScheduler, AsyncSarathiScheduler)]
)
def test_each_prefix_is_computed_once_where_stock_vllm_computes_it_again(
    stock: type, ours: type
) -> None:
    once = NUM_PREFIXES * PREFIX_TOKENS + NUM_PREFIXES * NUM_EACH * 20
    assert num_prefill_tokens(loop_with(ours, OFFLINE)) == once
    assert num_prefill_tokens(loop_with(stock, None)) > 2 * once


def test_answers_are_those_of_stock_vllm() -> None:
    ours, stock = loop_with(SarathiScheduler, OFFLINE), loop_with(Scheduler, None)
    ours.run()
    stock.run()
    assert ours.outputs == stock.outputs


def test_without_prefix_caching_requests_are_admitted_as_they_came() -> None:
    loop = loop_with(SarathiScheduler, OFFLINE, enable_prefix_caching=False)
    assert order_of_admission(loop) == list(prompts())


def test_a_batch_beneath_interactive_traffic_waits_for_it_and_keeps_its_prefixes_together() -> None:
    loop = loop_with(SarathiScheduler, {"order": "prefix"})
    loop.add("chat", 40, max_tokens=2, extra_args={"qos": "interactive"})
    admitted = order_of_admission(loop)
    assert admitted[0] == "chat"
    groups = [name.split(".")[0] for name in admitted[1:]]
    assert groups == sorted(groups, key=groups.index)
