"""What a run comes to."""

from collections.abc import Callable

import numpy as np
import pytest

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator import Deployment, EngineSettings, Fixed, Synthetic, simulate


@pytest.mark.parametrize(
    ("objective", "metric"),
    [("ttft_s", "ttft_s"), ("tpot_s", "tpot_s"), ("tbt_s", "max_gap_s"), ("e2e_s", "e2e_s")],
)
def test_goodput_is_the_share_of_requests_that_meet_the_objective(
    machine: Callable[..., Deployment], objective: str, metric: str
) -> None:
    workload = Synthetic(Fixed(300, 20), num_requests=40).at(20.0, 0)
    report = simulate(EngineSettings(), machine(), workload, noise=0.02)
    values = getattr(report.per_request, metric)
    limit = float(np.median(values))
    share = float((values <= limit).mean())
    assert 0.4 < share < 1
    assert report.goodput(Objectives(**{objective: limit})) == share
