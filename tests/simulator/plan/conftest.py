"""A demand on the small machine, and two ways to meet it."""

from collections.abc import Callable

import pytest

from vllm_sarathi.simulator import CapacityGoal, Deployment, EngineSettings, Fixed, Synthetic
from vllm_sarathi.simulator.plan.candidate import Candidate
from vllm_sarathi.simulator.plan.trial import Demand


@pytest.fixture
def demand() -> Demand:
    """More than one machine holds at 45 ms between tokens."""
    return Demand(Synthetic(Fixed(300, 20), 100), 60.0, CapacityGoal(tbt_s=0.045, ttft_s=1.0))


@pytest.fixture
def ways(machine: Callable[..., Deployment]) -> list[Candidate]:
    """One pipeline stage, and two for more than twice as much."""
    return [
        Candidate(machine(), "small", 1, 1.0, 40.0),
        Candidate(machine(2), "small", 1, 2.5, 40.0),
    ]


@pytest.fixture
def engines() -> list[EngineSettings]:
    """Two budgets of stock vLLM, and ours."""
    return [
        EngineSettings("stock", max_num_batched_tokens=256),
        EngineSettings("stock", max_num_batched_tokens=512),
        EngineSettings("sarathi", {"tbt_slo_ms": 45}),
    ]
