import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Fixed,
    StepCost,
    StepWork,
    Synthetic,
    deployment,
    simulate,
)
from vllm_sarathi.simulator.machine.calibration import Step, fit, read_steps


def steps(cost: StepCost, num: int, noise: float, seed: int = 0) -> list[Step]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(num):
        num_decodes = int(random.integers(0, 100))
        chunk = int(random.integers(0, 900)) if random.random() < 0.5 else 0
        context = chunk * float(random.integers(0, 4000))
        decode_context = num_decodes * int(random.integers(10, 2000))
        work = StepWork(max(1, num_decodes + chunk), context, decode_context)
        duration_s = cost.step_s(work, num_decodes) * max(0.5, random.normal(1, noise))
        made.append(Step(work, float(duration_s)))
    return made


def test_a_fit_recovers_the_cost_that_made_the_steps() -> None:
    cost = deployment("a100-llama-3-8b").stages[0]
    found = fit(steps(cost, 2000, noise=0.02))
    assert found.error_p90 < 0.15
    assert abs(found.bias) < 0.01
    assert found.cost.decode_context_s == pytest.approx(cost.decode_context_s, rel=0.1)


def test_a_pause_does_not_move_the_fit() -> None:
    cost = deployment("a100-llama-3-8b").stages[0]
    made = steps(cost, 1000, noise=0.0)
    clean = fit(made)
    paused = fit([made[0]._replace(duration_s=30.0), *made[1:]])
    assert paused.cost.tokens_s(100) == pytest.approx(clean.cost.tokens_s(100), rel=0.02)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="3 steps are too few"):
        fit([Step(StepWork(1), 0.01)] * 3)


def test_recorded_steps_are_read_back(tmp_path: Path) -> None:
    line = {"work": {"num_tokens": 5, "chunk_context": 1.5, "decode_context": 7}}
    path = tmp_path / "steps.jsonl"
    lines = [{**line, "duration_s": 0.5}, {**line, "duration_s": None}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_steps(path) == [Step(StepWork(5, 1.5, 7), 0.5)]


WORK = '{"work": {"num_tokens": %s, "chunk_context": 0, "decode_context": 0}, '


@pytest.mark.parametrize(
    "line",
    [
        '{"work": 1}',
        WORK % '"5"' + '"duration_s": 0.1}',
        WORK % "5" + '"duration_s": "0.1"}',
        WORK % "5" + '"duration_s": 1e400}',
    ],
)
def test_a_line_that_is_no_step_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"steps.jsonl' line 1"):
        read_steps(path)


@pytest.fixture
def small() -> Deployment:
    """Calibrated on steps of at most 64 tokens."""
    cost = StepCost(((0, 0.01), (64, 0.02)), 0.0, 0.0)
    made = [Step(StepWork(1 + i % 64, 10.0, 20), cost.tokens_s(1 + i % 64)) for i in range(200)]
    return fit(made).deployment("small", 10_000, 1000)


def test_the_range_that_was_seen_is_in_the_deployment_and_survives_json(small: Deployment) -> None:
    assert small.largest_step == StepWork(64, 10.0, 20)
    assert Deployment.from_json(json.loads(json.dumps(small.to_json()))) == small


def test_what_was_not_seen_is_no_figure() -> None:
    assert fit([Step(StepWork(4), 0.01)] * 60).figures()["ms_per_token_of_1024"] is None


@pytest.mark.parametrize(("budget", "num_prompt", "leaves"), [(32, 8, False), (512, 300, True)])
def test_steps_beyond_the_range_are_counted(
    small: Deployment, budget: int, num_prompt: int, leaves: bool
) -> None:
    small = replace(small, largest_step=StepWork(64, 1e6, 1_000_000))
    engine = EngineSettings(max_num_batched_tokens=budget)
    report = simulate(engine, small, Synthetic(Fixed(num_prompt, 2), 5).at(1, 0))
    assert (report.summary()["extrapolated_steps"] > 0) == leaves


def test_a_deployment_of_hardware_counts_none() -> None:
    report = simulate(
        EngineSettings(), deployment("a100-llama-3-8b"), Synthetic(Fixed(9, 1), 1).at(1, 0)
    )
    assert "extrapolated_steps" not in report.summary()
