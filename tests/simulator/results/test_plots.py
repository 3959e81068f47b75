from collections.abc import Callable

import numpy as np
import pytest

from vllm_sarathi.simulator import Deployment, EngineSettings, Fixed, Synthetic, simulate
from vllm_sarathi.simulator.results.plots import _busy_share


def test_the_share_of_a_bin_is_what_intervals_cover() -> None:
    spans = np.array([[0.5, 1.5], [1.5, 1.75], [3.0, 4.0]])
    assert _busy_share(spans, np.linspace(0, 4, 5)).tolist() == [0.5, 0.75, 0.0, 1.0]
    assert _busy_share(np.zeros((0, 2)), np.linspace(0, 2, 3)).tolist() == [0.0, 0.0]


def test_a_run_tells_the_share_of_its_tokens(machine: Callable[..., Deployment]) -> None:
    told: list[float] = []
    workload = Synthetic(Fixed(10, 1000), 3).at(1, 0)
    simulate(EngineSettings(), machine(), workload, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0, abs=0.3)
