from collections.abc import Callable

import numpy as np
import pytest

from vllm_sarathi.simulator import (
    LENGTHS,
    Arrivals,
    Diurnal,
    Fixed,
    Lengths,
    QosClass,
    Ramp,
    Replay,
    Synthetic,
    Workload,
)
from vllm_sarathi.simulator.load.workload import Floats

RANDOM = np.random.default_rng


@pytest.mark.parametrize("cv", [0.0, 1e-200, 1.0, 3.0])
def test_arrivals_have_the_rate_and_burstiness_asked_for(cv: float) -> None:
    gaps = np.diff(Arrivals(cv).draw(40_000, 5.0, RANDOM(0)))
    assert gaps.mean() == pytest.approx(0.2, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.1)


@pytest.mark.parametrize("shape", [Ramp(0.2, 1.8), Diurnal()])
def test_a_changing_rate_keeps_its_mean(shape: Callable[[Floats], Floats]) -> None:
    times = Arrivals(shape=shape).draw(20_000, 10.0, RANDOM(0))
    assert times[-1] == pytest.approx(2000, rel=0.05)
    assert (np.diff(times) >= 0).all()


def test_a_ramp_is_busier_at_its_end() -> None:
    times = Arrivals(shape=Ramp(0.2, 1.8)).draw(20_000, 10.0, RANDOM(0))
    assert (times > times[-1] / 2).mean() == pytest.approx(0.7, abs=0.03)


def test_lengths_are_the_same_at_every_rate() -> None:
    traffic = Synthetic(LENGTHS["code"], 50)
    slow, fast = traffic.at(1, seed=3), traffic.at(9, seed=3)
    assert (slow.lengths.num_prompt == fast.lengths.num_prompt).all()
    assert slow.arrival_s[-1] == pytest.approx(9 * fast.arrival_s[-1])


def test_classes_come_in_their_shares() -> None:
    traffic = Synthetic(Fixed(1, 1), 5000, classes=((QosClass("a"), 3), (QosClass("b"), 1)))
    assert traffic.at(1, 0).class_of.mean() == pytest.approx(0.25, abs=0.03)


def test_a_replay_scales_its_clock() -> None:
    lengths = Lengths(np.array([1, 1]), np.array([1, 1]))
    replay = Replay(Workload("recorded", np.array([0.0, 4.0]), lengths))
    assert replay.at(replay.rate * 2, seed=0).arrival_s.tolist() == [0.0, 2.0]
