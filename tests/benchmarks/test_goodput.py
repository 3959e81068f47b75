"""The goodput benchmark compares what it says it compares."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from support.goodput_cases import A100, Mixed, Overload, ShortAndLong
from support.goodput_rivals import PARTS, PAUSES, DeadlineQueue, without
from support.goodput_runs import ours

from vllm_sarathi.simulator import (
    LENGTHS,
    Agentic,
    EngineSettings,
    Fixed,
    Report,
    Synthetic,
    deployment,
    simulate,
)

CHATS = Fixed(100, 400)


def served(engine: EngineSettings, lengths: Fixed = CHATS) -> Report:
    """What an engine makes of more requests than can be in time."""
    workload = Synthetic(lengths, 160).at(20.0, 0)
    return simulate(engine, deployment("a100-llama-3-8b"), workload)


def test_the_prototype_serves_the_late_last() -> None:
    queue = DeadlineQueue(ttft_s=2.0)
    requests = [SimpleNamespace(arrival_time=time.time() - age) for age in (1.0, 3.0, 0.5)]
    queue.prepend_requests(requests)
    assert [queue.pop_request() for _ in requests] == [requests[0], requests[2], requests[1]]
    with pytest.raises(IndexError):
        queue.peek_request()


def test_ours_without_nothing_is_ours() -> None:
    whole = served(ours("ours", **A100.settings))
    same = served(without((), A100.settings, max_num_batched_tokens=8192))
    assert np.array_equal(whole.per_request.e2e_s, same.per_request.e2e_s)


TIGHT = ({"ttft_slo_ms": 1000.0, "tpot_slo_ms": 15.0}, CHATS)
PAUSED = ({"tbt_slo_ms": 200.0}, Fixed(4000, 100))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_switched_off_is_missing(part: str) -> None:
    settings, lengths = PAUSED if part == PAUSES else TIGHT
    whole = served(ours("ours", **settings), lengths)
    partial = served(without((part,), settings, max_num_batched_tokens=8192), lengths)
    assert not np.array_equal(whole.per_request.e2e_s, partial.per_request.e2e_s)


def test_overload_ends_when_it_says() -> None:
    shape = Overload(overload_s=100.0, after_s=300.0, high=2.0, low=0.5)
    workload = shape.traffic(LENGTHS["sharegpt"], 10.0, ()).at(10.0 * shape.mean, 0)
    early = (workload.arrival_s < 100.0).sum()
    late = ((workload.arrival_s >= 100.0) & (workload.arrival_s < 400.0)).sum()
    assert early == pytest.approx(2000, rel=0.1)
    assert late == pytest.approx(1500, rel=0.1)


def test_only_the_long_of_a_mix_share_prefixes() -> None:
    lengths = Mixed(Fixed(200, 20), Agentic(), 0.3)
    workload = ShortAndLong(lengths, seconds=100.0).at(5.0, 0)
    is_long = workload.class_of == 1
    shared = workload.lengths.num_shared
    assert shared is not None
    assert 0.2 < is_long.mean() < 0.4
    assert (shared[is_long] > 0).all()
    assert not shared[~is_long].any()
