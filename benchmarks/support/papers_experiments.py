"""What the papers measured, run in virtual time. Every scheduler is a real vLLM class."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

# The simulator imports vLLM, which logs as it is imported.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from tqdm import tqdm

from vllm_sarathi.simulator import (
    LENGTHS,
    CapacityGoal,
    EngineSettings,
    Fixed,
    Report,
    Synthetic,
    Zipf,
    deployment,
    find_capacity,
    simulate,
)

Figures = dict[str, Any]

# Whole prompts: vLLM then wants a budget that holds the longest.
UNCHUNKED = {"enable_chunked_prefill": False}
PREFILL_FIRST = "support.papers_baselines.PrefillFirstScheduler"
ORCA_SCHEDULER = "support.papers_baselines.OrcaScheduler"
ORCA = "Orca: unchunked, micro-batches of 27"
MICRO_BATCH = 27  # SARATHI, section 5.3: requests of a micro-batch under TP8-PP8
CHUNK, BATCH = 256, 18
PD_RATIOS = (2, 4, 7, 10, 12, 15, 18, 22, 28, 40, 60, 100)


def sarathi(**settings: Any) -> dict[str, Any]:
    """Engine fields of our scheduler with settings."""
    return {"scheduler": "sarathi", "sarathi": settings}


def bubble_s(report: Report) -> float:
    """Idle stage time of a run, in seconds."""
    stages = len(report.stage_busy_s)
    return stages * report.stage_span_s - sum(report.stage_busy_s)


def pipeline(num_requests: int, num_seeds: int) -> Figures:
    """SARATHI, section 5.3: GPT-3 on 64 A100, TP8-PP8, Zipf 1K to 4K, P:D = 10."""
    machine = replace(deployment("a100-gpt-3-tp8-pp8"), max_model_len=4096)
    engines: dict[str, dict[str, Any]] = {
        ORCA: {
            "scheduler": ORCA_SCHEDULER,
            "max_num_batched_tokens": 4096,
            "engine_args": UNCHUNKED,
        },
        "stock, unchunked": {"max_num_batched_tokens": 4096, "engine_args": UNCHUNKED},
        "stock, 2048": {"max_num_batched_tokens": 2048},
        "stock, 256": {"max_num_batched_tokens": 256},
        "decode-maximal, C = 256": sarathi(preset="decode-maximal", chunk_size=256),
        "stall-free, 256": sarathi(preset="stall-free", token_budget=256),
        "slo without an objective": sarathi(tbt_slo_ms=None),
    }
    found: dict[str, dict[str, list[float]]] = {}
    for name, fields in tqdm(engines.items(), desc="pipeline"):
        engine = EngineSettings(
            **{"max_num_seqs": 8 * MICRO_BATCH, "async_scheduling": False, **fields}
        )
        runs = [
            simulate(engine, machine, load.at(1, seed), seed=seed)
            for seed in range(num_seeds)
            for load in [Synthetic(Zipf(10), num_requests, at_once=True)]
        ]
        found[name] = {
            "tokens_per_s": [run.tokens_per_s or 0.0 for run in runs],
            "bubble_s": [bubble_s(run) for run in runs],
            "idle_share": [run.idle_share or 0.0 for run in runs],
        }
    return found


def pd_optimum() -> Figures:
    """SARATHI, section 5.1.2: the gain peaks where prefill and decode run out together."""
    machine = deployment("a100-llama-3-8b")
    length, gains = 2048, Figures()
    for ratio in tqdm(PD_RATIOS, desc="P:D"):
        num_output = max(1, round(length / (1 + ratio)))
        load = Synthetic(Fixed(length - num_output, num_output), 40 * BATCH, at_once=True)
        rates = []
        rivals: tuple[dict[str, Any], ...] = (
            {"scheduler": PREFILL_FIRST, "max_num_batched_tokens": length},
            sarathi(preset="decode-maximal", chunk_size=CHUNK - BATCH + 1),
        )
        for fields in rivals:
            engine = EngineSettings(**fields, max_num_seqs=BATCH, async_scheduling=False)
            rates.append(simulate(engine, machine, load.at(1, 0)).tokens_per_s or 0.0)
        gains[str(ratio)] = rates[1] / rates[0]
    return gains


def serving_capacity(num_requests: int, num_seeds: int) -> Figures:
    """Sarathi-Serve, section 5.1: Mistral-7B on one A100, P99 TBT 100 ms."""
    machine, goal = deployment("a100-mistral-7b"), CapacityGoal(tbt_s=0.1)
    engines: dict[str, dict[str, Any]] = {
        "prefill-first (vLLM then)": {
            "scheduler": PREFILL_FIRST,
            "max_num_batched_tokens": 16384,
            "async_scheduling": False,
        },
        "stock, 2048 (vLLM now)": {"max_num_batched_tokens": 2048},
        "stall-free, 512 (the paper's)": sarathi(preset="stall-free", token_budget=512),
        "slo, 100 ms": sarathi(tbt_slo_ms=100),
    }
    found: Figures = {}
    for workload in ("sharegpt", "arxiv"):
        traffic = Synthetic(LENGTHS[workload], num_requests)
        for name, fields in tqdm(engines.items(), desc=workload):
            engine = EngineSettings(**{"max_num_seqs": 128, **fields})
            found.setdefault(workload, {})[name] = [
                find_capacity(
                    engine, machine, traffic, goal, seed=seed, precision=0.03, steady=False
                ).rate
                for seed in range(num_seeds)
            ]
    return found


EXPERIMENTS: dict[str, Callable[..., Figures]] = {
    "pipeline": pipeline,
    "pd": pd_optimum,
    "capacity": serving_capacity,
}
