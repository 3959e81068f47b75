"""Speculative decoding in virtual time, around both of vLLM's scheduler classes and ours."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Fixed,
    Report,
    Speculation,
    Synthetic,
    Workload,
    simulate,
)

SCHEDULERS = ["stock", "sarathi"]
KINDS = [(scheduler, asynchronous) for scheduler in SCHEDULERS for asynchronous in (False, True)]
of_every_kind = pytest.mark.parametrize(("scheduler", "asynchronous"), KINDS)
SOME = Speculation(3, 0.7)


def lone(scheduler: str, asynchronous: bool, speculation: Speculation) -> EngineSettings:
    return EngineSettings(scheduler, async_scheduling=asynchronous, speculation=speculation)


@of_every_kind
@pytest.mark.parametrize("speculation", [SOME, Speculation(1, 1.0), Speculation(5, 0.0)])
def test_every_request_gets_as_many_tokens_as_it_asked_for(
    machine: Callable[..., Deployment],
    mixed: Callable[..., Workload],
    scheduler: str,
    asynchronous: bool,
    speculation: Speculation,
) -> None:
    workload = mixed()
    report = simulate(lone(scheduler, asynchronous, speculation), machine(), workload)
    assert report.completed
    assert report.num_output_tokens == workload.lengths.num_output.sum()


@of_every_kind
def test_where_no_draft_is_accepted_each_step_brings_a_token(
    machine: Callable[..., Deployment], scheduler: str, asynchronous: bool
) -> None:
    engine = lone(scheduler, asynchronous, Speculation(3, 0.0))
    plain = replace(engine, speculation=None)
    steps = [simulate(one, machine(), alone(41)).num_steps for one in (engine, plain)]
    assert steps[0] == steps[1] == 41


@of_every_kind
def test_where_all_drafts_are_accepted_each_step_brings_them_and_one_token(
    machine: Callable[..., Deployment], scheduler: str, asynchronous: bool
) -> None:
    engine = lone(scheduler, asynchronous, Speculation(3, 1.0))
    report = simulate(engine, machine(), alone(41))
    assert report.num_steps - asynchronous <= 1 + 40 / 4  # a step ahead may turn out needless
    assert report.gaps.num == 40 / 4


def alone(num_output: int) -> Workload:
    """One request whose prompt is one chunk."""
    return Synthetic(Fixed(100, num_output), 1, at_once=True).at(1, 0)


@of_every_kind
def test_a_step_of_decodes_holds_their_drafts_and_reads_each_context_once(
    machine: Callable[..., Deployment], scheduler: str, asynchronous: bool
) -> None:
    engine = lone(scheduler, asynchronous, Speculation(3, 0.0))
    report = simulate(engine, machine(), alone(5), keep_steps=True)
    assert report.steps is not None
    assert list(report.steps.num_decode) == [0, 1, 1, 1, 1]
    assert list(report.steps.num_prefill) == [100, 0, 0, 0, 0]
    assert report.num_tokens == 100 + 4 * 4
    cost = machine().stages[0]
    busy_s = 5 * cost.tokens_s(100) + 100 * 50 * cost.chunk_context_s
    busy_s += (100 + 101 + 102 + 103) * cost.decode_context_s
    # With async scheduling the rejected ones of the step before are not taken back yet.
    not_yet_s = asynchronous * 3 * 3 * cost.decode_context_s
    assert report.stage_busy_s[0] == pytest.approx(busy_s + not_yet_s)


def test_drafting_and_sampling_of_drafts_take_time_on_the_last_stage(
    machine: Callable[..., Deployment],
) -> None:
    workload = alone(11)
    stages = (machine().stages[0], replace(machine().stages[0], sampled_s=1e-4))
    deployment = replace(machine(), stages=stages)
    free, dear = (
        simulate(EngineSettings(speculation=Speculation(3, 0.0, draft_s)), deployment, workload)
        for draft_s in (0.0, 1e-3)
    )
    drafting_s = np.subtract(dear.stage_busy_s, free.stage_busy_s)
    assert drafting_s.tolist() == pytest.approx([0.0, 11 * 3e-3])
    sampling_s = free.stage_busy_s[1] - free.stage_busy_s[0]
    assert sampling_s == pytest.approx((11 + 10 * 3) * 1e-4)


def test_tokens_that_come_together_end_one_gap_and_share_a_tpot(
    machine: Callable[..., Deployment],
) -> None:
    report = simulate(EngineSettings(speculation=Speculation(3, 1.0)), machine(), alone(41))
    gap_s = report.percentile("tbt_s", 50)
    assert gap_s is not None
    assert gap_s == pytest.approx(0.010, rel=0.05)
    assert report.percentile("tpot_s", 50) == pytest.approx(gap_s / 4, rel=0.05)


def rows(report: Report) -> dict[str, Any]:
    return {name: getattr(report.per_request, name).tolist() for name in ("ttft_s", "e2e_s")}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_runs_of_one_seed_are_equal_and_those_of_others_are_not(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload], scheduler: str
) -> None:
    engine, workload = EngineSettings(scheduler, speculation=SOME), mixed()
    first, again, other = (
        rows(simulate(engine, machine(), workload, seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again
    assert first["e2e_s"] != other["e2e_s"]


def test_every_scheduler_sees_the_same_drafts_accepted(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload]
) -> None:
    reports = [simulate(lone(*kind, SOME), machine(), mixed()) for kind in KINDS]
    assert len({report.gaps.num for report in reports}) == 1


@pytest.mark.parametrize(("acceptance", "mean"), [(0.7, 1 + 0.7 + 0.49 + 0.343), (0.5, 1.875)])
def test_a_draft_is_accepted_as_often_as_asked_if_those_before_it_are(
    machine: Callable[..., Deployment], acceptance: float, mean: float
) -> None:
    workload = Synthetic(Fixed(16, 401), 50, at_once=True).at(1, 0)
    engine = EngineSettings(speculation=Speculation(3, acceptance))
    report = simulate(engine, machine(), workload)
    assert 50 * 400 / report.gaps.num == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize("num_stages", [2, 4])
def test_drafts_pass_a_pipeline_where_scheduling_is_asynchronous(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload], num_stages: int
) -> None:
    workload = mixed()
    report = simulate(EngineSettings(speculation=SOME), machine(num_stages), workload)
    assert report.num_output_tokens == workload.lengths.num_output.sum()
    with pytest.raises(ValueError, match="async_scheduling=False must be True"):
        simulate(lone("stock", False, SOME), machine(num_stages), workload)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ((0, 0.5), "num_tokens=0 must be a whole number, 1 or more"),
        ((2.0, 0.5), "num_tokens=2.0 must be"),
        ((3, 1.5), "acceptance=1.5 must be a probability from 0 to 1"),
        ((3, float("nan")), "acceptance=nan must be"),
        ((3, 0.5, -1.0), "draft_s=-1.0 must be 0 seconds or more"),
    ],
)
def test_drafts_that_cannot_be_are_refused_by_name(wrong: tuple[Any, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Speculation(*wrong)
