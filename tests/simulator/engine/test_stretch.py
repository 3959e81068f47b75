from collections.abc import Callable
from typing import Any

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Fixed,
    LengthDistribution,
    Quantiles,
    Synthetic,
    Workload,
    simulate,
)
from vllm_sarathi.simulator.engine.stretch import Stretch

TIMES = ("ttft_s", "e2e_s", "tpot_s", "max_gap_s", "scheduling_delay_s")


def long_answers(rate: float) -> Workload:
    lengths = LengthDistribution(
        "long", Quantiles(((0, 10), (1, 900))), Quantiles(((0, 50), (1, 500))), 2048
    )
    return Synthetic(lengths, 40).at(rate, seed=0)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many stretches were run."""
    counted: list[int] = []
    advance = Stretch._advance

    def noted(self: Stretch, requests: list[Any], num_steps: int) -> None:
        counted.append(num_steps)
        advance(self, requests, num_steps)

    monkeypatch.setattr(Stretch, "_advance", noted)
    return counted


@pytest.mark.parametrize("scheduler", ["stock", "sarathi"])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("num_kv_tokens", [3_000, 100_000])
@pytest.mark.parametrize("rate", [2.0, 40.0])
def test_stretches_change_no_token_time(
    machine: Callable[..., Deployment],
    count: list[int],
    scheduler: str,
    asynchronous: bool,
    num_kv_tokens: int,
    rate: float,
) -> None:
    engine = EngineSettings(scheduler, async_scheduling=asynchronous, max_num_batched_tokens=512)
    deployment = machine(num_kv_tokens=num_kv_tokens, max_model_len=2048)
    fast, slow = (
        simulate(engine, deployment, long_answers(rate), noise=0.02, keep_steps=True, stretches=on)
        for on in (True, False)
    )
    assert count
    for name in TIMES:
        assert getattr(fast.per_request, name) == pytest.approx(
            getattr(slow.per_request, name), rel=1e-9, nan_ok=True
        )
    assert fast.gaps.cdf() == slow.gaps.cdf()
    assert fast.num_steps == slow.num_steps
    assert fast.num_preemptions == slow.num_preemptions
    assert fast.steps is not None
    assert slow.steps is not None
    assert fast.steps.num_decode == slow.steps.num_decode


class Own(Scheduler):
    """Does as vLLM's, but may not."""


@pytest.mark.parametrize(("scheduler", "is_asked"), [("stock", False), (f"{__name__}.Own", True)])
def test_a_class_of_ones_own_is_asked_at_every_step(
    machine: Callable[..., Deployment], count: list[int], scheduler: str, is_asked: bool
) -> None:
    engine = EngineSettings(scheduler, async_scheduling=False)
    report = simulate(engine, machine(), Synthetic(Fixed(10, 100), 3, at_once=True).at(1, 0))
    assert report.completed
    assert (not count) == is_asked
