"""A small machine on which a step takes a round number of milliseconds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vllm_sarathi.simulator import Deployment, EngineSettings, Lengths, Overhead, StepCost, Workload
from vllm_sarathi.simulator.run import simulate

COST = StepCost(((0, 0.010), (128, 0.010), (129, 0.020), (4096, 0.320)), 1e-9, 1e-8)


@pytest.fixture
def machine() -> Callable[..., Deployment]:
    def make(num_stages: int = 1, **fields: Any) -> Deployment:
        settings: dict[str, Any] = {
            "num_kv_tokens": 100_000,
            "max_model_len": 8192,
            "overhead": Overhead(1e-4, 0, 1e-4, 0, 1e-4),
            **fields,
        }
        return Deployment("machine", (COST,) * num_stages, **settings)

    return make


@pytest.fixture
def mixed() -> Callable[..., Workload]:
    """Prompts of 10 to 1000 tokens at a steady rate."""

    def make(num: int = 60, rate: float = 8.0, seed: int = 0) -> Workload:
        random = np.random.default_rng(seed)
        lengths = Lengths(random.integers(10, 1000, num), random.integers(1, 60, num))
        return Workload("mixed", np.cumsum(random.exponential(1 / rate, num)), lengths)

    return make


@pytest.fixture
def batches(machine: Callable[..., Deployment]) -> Callable[..., list[str]]:
    """The batches of a run, as strings like "D2 P100"."""

    def run(engine: EngineSettings, workload: Workload, **options: Any) -> list[str]:
        deployment = options.pop("deployment", None) or machine()
        report = simulate(engine, deployment, workload, keep_steps=True, **options)
        assert report.steps is not None
        pairs = zip(report.steps.num_decode, report.steps.num_prefill, strict=True)
        return [f"D{decode} P{prefill}" for decode, prefill in pairs]

    return run
