"""The benchmarks' oracle predicts what the simulator will charge."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.oracle import oracle

from tests.support.step_log import logged_steps
from vllm_sarathi.simulator import Deployment, Workload, simulate


def test_the_oracle_predicts_every_step_tokens_sampled_and_all(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload], tmp_path: Path
) -> None:
    deployment, step_log = machine(), tmp_path / "steps.jsonl"
    deployment = replace(deployment, stages=(replace(deployment.stages[0], sampled_s=1e-4),))
    settings = {"tbt_slo_ms": 50, "step_log": str(step_log)}
    engine = oracle(deployment, 0.0, settings, max_num_batched_tokens=8192)
    report = simulate(engine, deployment, mixed(), keep_steps=True)
    assert report.steps is not None
    predicted_s = [step["predicted_s"] for step in logged_steps(step_log)]
    taken_s = [end_s - start_s for ((start_s, end_s),) in report.steps.stages]
    assert predicted_s == pytest.approx(taken_s, rel=1e-3)
