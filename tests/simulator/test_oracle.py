"""The benchmarks' oracle predicts what the simulator will charge."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.oracle import exact_step_times

from vllm_sarathi.simulator import Deployment, EngineSettings, Workload, simulate


def test_the_oracle_predicts_every_step_tokens_sampled_and_all(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload], tmp_path: Path
) -> None:
    deployment, trace = machine(), tmp_path / "steps.jsonl"
    deployment = replace(deployment, stages=(replace(deployment.stages[0], sampled_s=1e-4),))
    engine = EngineSettings("sarathi", {"tbt_slo_ms": 50, "step_log": str(trace)}, 8192)
    with exact_step_times(deployment, noise=0.0):
        report = simulate(engine, deployment, mixed(), keep_steps=True)
    predicted_s = [json.loads(line)["predicted_s"] for line in trace.read_text().splitlines()]
    taken_s = [end_s - start_s for ((start_s, end_s),) in report.steps.stages]
    assert predicted_s == pytest.approx(taken_s, rel=1e-3)
