"""Which deployments may serve a load, and what they can at most serve."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from vllm_sarathi.simulator import (
    LENGTHS,
    Deployment,
    EngineSettings,
    Fixed,
    Synthetic,
    Workload,
    simulate,
)
from vllm_sarathi.simulator.load.workload import PromptBlocks
from vllm_sarathi.simulator.machine.deployments import on_gpus
from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.models import read_model
from vllm_sarathi.simulator.machine.prices import read_prices
from vllm_sarathi.simulator.plan.candidate import Candidate, candidates, most_rate

PRICES = {name: price.usd_per_gpu_hour for name, price in read_prices().items()}


def found(model: str, *gpus: str, workload: Workload | None = None) -> list[Candidate]:
    """The candidates of a model on some GPUs."""
    load = workload or Synthetic(LENGTHS["conversation"], 50).at(1.0, 0)
    return candidates(read_model(model), [GPUS[name] for name in gpus], PRICES, load)[0]


def test_a_large_model_is_split_until_it_fits() -> None:
    splits = {
        (one.tensor_parallel, len(one.deployment.stages)) for one in found("llama-3-70b", "a100")
    }
    assert (1, 1) not in splits
    assert (4, 1) in splits
    assert (2, 2) in splits


def test_tensor_parallelism_stays_within_a_server() -> None:
    widest = max(one.tensor_parallel for one in found("llama-3-8b", "l4"))
    assert widest == GPUS["l4"].num_in_server


def test_a_replica_costs_what_its_gpus_cost() -> None:
    for one in found("llama-3-8b", "h100"):
        assert one.num_gpus == one.tensor_parallel * len(one.deployment.stages)
        assert one.usd_per_hour == pytest.approx(one.num_gpus * PRICES["h100"])


def test_what_cannot_hold_the_longest_request_is_no_candidate() -> None:
    load = Synthetic(Fixed(30_000, 10), 5).at(1.0, 0)
    model = replace(read_model("llama-3-8b"), max_model_len=40_000)
    few, reasons = candidates(model, [GPUS["l4"]], PRICES, load)
    assert (1, 1) not in {(one.tensor_parallel, len(one.deployment.stages)) for one in few}
    assert "max_model_len=40000" in reasons["l4 tp1 pp1"]


@pytest.mark.parametrize("lengths", ["sharegpt", "code"])
@pytest.mark.parametrize("budget", [512, 8192])
def test_no_run_is_faster_than_arithmetic_allows(lengths: str, budget: int) -> None:
    deployment = on_gpus(GPUS["a100"], read_model("llama-3-8b"))
    workload = Synthetic(LENGTHS[lengths], 200, at_once=True).at(1.0, 0)
    report = simulate(EngineSettings("stock", max_num_batched_tokens=budget), deployment, workload)
    assert len(workload) / report.duration_s < most_rate(deployment, workload)


def test_what_prompts_share_is_computed_once(machine: Callable[..., Deployment]) -> None:
    alike = Synthetic(LENGTHS["agentic"], 20).at(1.0, 0)
    lengths = replace(alike.lengths, num_shared=None, prefix=None)
    assert alike.lengths.num_distinct < lengths.num_distinct / 3
    apart = replace(alike, lengths=lengths)
    assert most_rate(machine(), alike) > 3 * most_rate(machine(), apart)


def test_prefixes_that_nobody_shares_are_computed(machine: Callable[..., Deployment]) -> None:
    apart = Synthetic(Fixed(800, 10), 20).at(1.0, 0)
    ids = [tuple(range(50 * one, 50 * one + 50)) for one in range(20)]
    with_ids = replace(apart, lengths=replace(apart.lengths, blocks=PromptBlocks(ids, 16)))
    alike = replace(apart, lengths=replace(apart.lengths, blocks=PromptBlocks(ids[:1] * 20, 16)))
    assert with_ids.lengths.num_distinct == apart.lengths.num_distinct == 16_000
    assert alike.lengths.num_distinct == 800
    assert most_rate(machine(), with_ids) == pytest.approx(most_rate(machine(), apart), rel=0.01)


def test_a_model_is_not_asked_for_longer_requests_than_it_takes() -> None:
    load = Synthetic(Fixed(100, 10), 5).at(1.0, 0)
    with pytest.raises(ValueError, match="max_model_len=40000 must be at most 32768"):
        candidates(read_model("llama-3-8b"), [GPUS["h100"]], PRICES, load, 40_000)
