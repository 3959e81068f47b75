"""Replicas behind a router."""

from collections.abc import Callable

import numpy as np
import pytest

from vllm_sarathi.simulator import Deployment, EngineSettings, Lengths, Workload, simulate
from vllm_sarathi.simulator.load.share import RoundRobinShare
from vllm_sarathi.simulator.load.traffic import Replay

STOCK = EngineSettings("stock", max_num_batched_tokens=512)
SARATHI = EngineSettings("sarathi", {"tbt_slo_ms": 50})


@pytest.mark.parametrize("engine", [STOCK, SARATHI], ids=lambda one: one.scheduler)
def test_behind_a_round_robin_router_each_replica_is_as_if_alone(
    engine: EngineSettings, machine: Callable[..., Deployment], mixed: Callable[..., Workload]
) -> None:
    workload = mixed(60, rate=40.0)
    together = simulate(engine, machine(), workload, num_replicas=3)
    for replica in range(3):
        alone = simulate(engine, machine(), workload.every(3, first=replica))
        ours = together.per_request.e2e_s[replica::3]
        assert np.allclose(ours, alone.per_request.e2e_s, rtol=0, atol=1e-9)


def test_a_share_of_a_load_is_what_one_replica_gets(mixed: Callable[..., Workload]) -> None:
    workload = mixed(30, rate=9.0)
    whole = Replay(workload)
    shared = RoundRobinShare(whole, 3).at(whole.rate, 0)
    assert shared.arrival_s.tolist() == pytest.approx(workload.arrival_s[::3].tolist())
    assert shared.lengths.num_prompt.tolist() == workload.lengths.num_prompt[::3].tolist()


def test_a_router_that_looks_at_the_load_avoids_the_busy_replica(
    machine: Callable[..., Deployment],
) -> None:
    # A long request first: by turns, every other short one would go to the same replica.
    lengths = Lengths(np.full(9, 100), np.array([400, *[20] * 8]))
    workload = Workload("one long", np.linspace(0, 2.4, 9), lengths)
    by_turns, by_load = (
        simulate(STOCK, machine(), workload, num_replicas=2, router=router)
        for router in ("round-robin", "least-load")
    )
    assert by_load.per_request.tpot_s[1:].mean() < by_turns.per_request.tpot_s[1:].mean()


@pytest.mark.parametrize("router", ["round-robin", "least-load"])
def test_every_request_is_served_once(
    router: str, machine: Callable[..., Deployment], mixed: Callable[..., Workload]
) -> None:
    workload = mixed(50, rate=100.0)
    report = simulate(SARATHI, machine(2), workload, num_replicas=4, router=router)  # type: ignore[arg-type]  # as on a command line
    assert report.completed
    assert report.num_output_tokens == workload.lengths.num_output.sum()
    assert len(report.stage_busy_s) == 8


def test_a_run_that_is_stopped_ends_all_replicas(
    machine: Callable[..., Deployment], mixed: Callable[..., Workload]
) -> None:
    report = simulate(STOCK, machine(), mixed(50, rate=5.0), num_replicas=2, limit_s=2.0)
    assert not report.completed
    assert 0 < report.num_finished < 50


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_replicas": 0}, "num_replicas=0 must be 1 or more"),
        ({"router": "random"}, "router='random' must be one of round-robin, least-load"),
    ],
)
def test_a_wrong_fleet_is_refused(
    wrong: dict[str, object],
    message: str,
    machine: Callable[..., Deployment],
    mixed: Callable[..., Workload],
) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(STOCK, machine(), mixed(), **wrong)  # type: ignore[arg-type]  # wrong on purpose
