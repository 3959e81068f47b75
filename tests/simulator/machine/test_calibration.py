import json
from pathlib import Path

import numpy as np
import pytest

from vllm_sarathi.simulator import StepCost, StepWork, deployment
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
