"""The patches on a real engine, whose core is another process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 600
pytestmark = [pytest.mark.engine, pytest.mark.timeout(LIMIT_S + 60)]

RUN = """
import json, sys
from vllm import EngineArgs, SamplingParams
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.metrics.loggers import StatLoggerBase

seen = {}

class Seeing(StatLoggerBase):
    def __init__(self, vllm_config, engine_index=0): pass
    def record(self, scheduler_stats, *args, **kwargs):
        seen.update(scheduler_stats.custom_stats if scheduler_stats else {})
    def log_engine_initialized(self): pass

engine = LLMEngine.from_engine_args(EngineArgs(
    model=sys.argv[1], dtype="float32", max_model_len=512, max_num_seqs=4, enforce_eager=True,
    enable_prefix_caching=False, max_num_batched_tokens=int(sys.argv[2]),
    scheduler_cls="tests.patches.exercises.scheduler_custom_stats.Counting",
), stat_loggers=[Seeing])
params = SamplingParams(seed=3, temperature=1.0, max_tokens=12, ignore_eos=True)
engine.add_request("0", {"prompt_token_ids": [20 + 7 * i % 900 for i in range(150)]}, params)
while engine.has_unfinished_requests():
    for answer in engine.step():
        tokens = list(answer.outputs[0].token_ids)
print("ANSWER", json.dumps({"tokens": tokens, "figures": seen}))
"""


@pytest.fixture(scope="module")
def answers(model: str, patched_vllm: Path) -> dict[str, dict[str, Any]]:
    """What engines answer that prefill a prompt at once, and in chunks."""
    budgets = {"at once": 512, "in chunks": 64}
    return {name: answer(model, patched_vllm, budget) for name, budget in budgets.items()}


def answer(model: str, patched_vllm: Path, budget: int) -> dict[str, Any]:
    path = os.pathsep.join([str(patched_vllm), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", RUN, model, str(budget)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S / 2,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    found: dict[str, Any] = json.loads(line.removeprefix("ANSWER "))
    return found


def test_a_seeded_request_answers_alike_with_a_chunked_prompt(
    answers: dict[str, dict[str, Any]],
) -> None:
    assert len(answers["in chunks"]["tokens"]) == 12
    assert answers["in chunks"]["tokens"] == answers["at once"]["tokens"]


def test_a_schedulers_figures_reach_a_stat_logger_of_another_process(
    answers: dict[str, dict[str, Any]],
) -> None:
    assert set(answers["at once"]["figures"]) == {"running", "faults"}
