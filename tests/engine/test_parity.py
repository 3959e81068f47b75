"""Real engine, real model: the scheduler changes when a token comes, never which."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

WORDS = ("river", "stone", "market", "engine", "winter", "paper", "garden", "signal", "copper")
QUESTIONS = [
    "The capital of France is",
    "Write a haiku about rain.",
    "1, 1, 2, 3, 5, 8,",
    "Translate to German: good morning",
    "def fibonacci(n):",
]


def prompts() -> list[str]:
    """Fifty and more prompts of 4 to about 700 tokens, some with a shared beginning."""
    varied = list(QUESTIONS)
    for i in range(50):
        words = " ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(3 + (i * 37) % 500))
        preface = "You are a patient teacher. " * 20 if i % 5 == 0 else ""
        varied.append(f"{preface}{QUESTIONS[i % len(QUESTIONS)]} {words}")
    return varied


RUN = """
import json, sys
from vllm import SamplingParams
from {package} import LLM
given = json.load(sys.stdin)
llm = LLM(given["model"], dtype="float32", max_model_len=2048, max_num_seqs=16,
          max_num_batched_tokens=2048, enforce_eager=True, seed=0, **given["options"])
params = SamplingParams(temperature=0.0, max_tokens=16)
answers = llm.generate(given["prompts"], params, use_tqdm=False)
print(json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))
"""


def generate(
    model: str, package: str = "vllm", environment: dict[str, str] | None = None, **options: Any
) -> list[list[int]]:
    """Greedy tokens from a fresh engine; in a process of its own, so that it ends for good."""
    given = json.dumps({"model": model, "prompts": prompts(), "options": options})
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(package=package)],
        input=given,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer = next(line for line in done.stdout.splitlines() if line.startswith("[["))
    tokens: list[list[int]] = json.loads(answer)
    return tokens


@pytest.fixture(scope="module")
def stock(model: str) -> list[list[int]]:
    return generate(model)


def test_our_llm_gives_stock_vllms_tokens(model: str, stock: list[list[int]]) -> None:
    tokens = generate(
        model, "vllm_sarathi", scheduler="sarathi", preset="stall-free", token_budget=96
    )
    assert len(tokens) >= 50
    assert tokens == stock


def test_the_alias_and_decode_maximal_give_stock_vllms_tokens(
    model: str, stock: list[list[int]]
) -> None:
    settings = {"preset": "decode-maximal", "chunk_size": 64, "tile_size": 32}
    tokens = generate(model, scheduler_cls="sarathi", additional_config={"sarathi": settings})
    assert tokens == stock


def test_the_asynchronous_class_by_its_dotted_path_gives_stock_vllms_tokens(
    model: str, stock: list[list[int]]
) -> None:
    tokens = generate(
        model,
        scheduler_cls="vllm_sarathi.AsyncSarathiScheduler",
        additional_config={"sarathi": {"preset": "stall-free", "token_budget": 128}},
    )
    assert tokens == stock


def test_two_pipeline_stages_give_the_tokens_of_one(
    model: str, stock: list[list[int]], patched_vllm: Path
) -> None:
    # Eager, for compiling takes minutes: that needs a patch.
    environment = {"PYTHONPATH": str(patched_vllm), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    tokens = generate(
        model,
        environment=environment,
        scheduler_cls="sarathi",
        pipeline_parallel_size=2,
    )
    assert tokens == stock
