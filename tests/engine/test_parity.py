"""Real engine, real model: the scheduler changes when a token comes, never which."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 1100
pytestmark = [pytest.mark.engine, pytest.mark.timeout(LIMIT_S + 60)]

WORDS = ("river", "stone", "market", "engine", "winter", "paper", "garden", "signal", "copper")
QUESTIONS = [
    "The capital of France is",
    "Write a haiku about rain.",
    "1, 1, 2, 3, 5, 8,",
    "Translate to German: good morning",
    "def fibonacci(n):",
]


def prompts() -> list[str]:
    """Fifty and more prompts of 4 to about 700 tokens: one in five is long, with a preface."""
    varied = list(QUESTIONS)
    for i in range(50):
        is_long = i % 5 == 0
        num_words = 3 + (i * 37) % (500 if is_long else 100)
        words = " ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(num_words))
        preface = "You are a patient teacher. " * 20 if is_long else ""
        varied.append(f"{preface}{QUESTIONS[i % len(QUESTIONS)]} {words}")
    return varied


RUN = """
import gc, json, sys
from importlib import import_module
from vllm import SamplingParams
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
given = json.load(sys.stdin)
params = SamplingParams(temperature=0.0, max_tokens=16)
for package, options in given["engines"]:
    llm = import_module(package).LLM(
        given["model"], dtype="float32", max_model_len=2048, max_num_seqs=16,
        max_num_batched_tokens=2048, enforce_eager=True, seed=0, **options)
    answers = llm.generate(given["prompts"], params, use_tqdm=False)
    print(json.dumps([list(answer.outputs[0].token_ids) for answer in answers]), flush=True)
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
"""
"""One engine after the other: they share a process, which has imported vLLM once."""

STALL_FREE = {"preset": "stall-free", "token_budget": 128}
DECODE_MAXIMAL = {"preset": "decode-maximal", "chunk_size": 64, "tile_size": 32}
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "stock": ("vllm", {}),
    "our LLM": (
        "vllm_sarathi",
        {"scheduler": "sarathi", "preset": "stall-free", "token_budget": 96},
    ),
    "alias": (
        "vllm",
        {"scheduler_cls": "sarathi", "additional_config": {"sarathi": DECODE_MAXIMAL}},
    ),
    "offline, prompts in another order inside": (
        "vllm",
        {
            "scheduler_cls": "sarathi",
            "additional_config": {"sarathi": {"preset": "offline"}},
            "block_size": 32,
        },
    ),
    "dotted path": (
        "vllm",
        {
            "scheduler_cls": "vllm_sarathi.AsyncSarathiScheduler",
            "additional_config": {"sarathi": STALL_FREE},
        },
    ),
}
Tokens = list[list[int]]


def generate(
    model: str, engines: list[tuple[str, dict[str, Any]]], **environment: str
) -> list[Tokens]:
    """Greedy tokens from each engine; in a process of its own, so that they end for good."""
    given = json.dumps({"model": model, "prompts": prompts(), "engines": engines})
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=given,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]


@pytest.fixture(scope="module")
def tokens(model: str) -> dict[str, Tokens]:
    """What each engine answers."""
    answers = generate(model, list(ENGINES.values()), VLLM_ENABLE_V1_MULTIPROCESSING="0")
    return dict(zip(ENGINES, answers, strict=True))


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "stock"])
def test_our_scheduler_gives_stock_vllms_tokens(tokens: dict[str, Tokens], name: str) -> None:
    assert len(tokens[name]) >= 50
    assert tokens[name] == tokens["stock"]


def test_two_pipeline_stages_give_the_tokens_of_one(
    model: str, tokens: dict[str, Tokens], patched_vllm: Path
) -> None:
    # Eager, for compiling takes minutes: that needs a patch.
    two_stages = {"scheduler_cls": "sarathi", "pipeline_parallel_size": 2}
    (answers,) = generate(
        model,
        [("vllm", two_stages)],
        PYTHONPATH=str(patched_vllm),
        VLLM_CPU_OMP_THREADS_BIND="nobind",
    )
    assert answers == tokens["stock"]
