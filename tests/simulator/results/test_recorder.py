import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.simulator.results.recorder import RESOLUTION, Gaps, StopRule

GAPS = st.lists(st.floats(1e-5, 100), min_size=1, max_size=200)


@given(GAPS, st.floats(0, 100))
def test_percentiles_are_those_of_the_gaps_to_the_resolution(
    values: list[float], percent: float
) -> None:
    gaps = Gaps()
    for value in values:
        gaps.add(value)
    exact = np.quantile(values, percent / 100, method="inverted_cdf")
    assert gaps.percentile(percent) == pytest.approx(exact, rel=RESOLUTION)


def test_no_gaps_have_no_percentile() -> None:
    assert Gaps().percentile(50) is None


def test_memory_does_not_grow_with_the_number_of_gaps() -> None:
    gaps = Gaps()
    gaps.add(0.02, 10_000_000)
    gaps.add(0.05, 1)
    assert len(gaps.cdf()) == 2
    assert gaps.cdf()[0][1] == pytest.approx(1 - 1e-7)


@given(st.integers(1, 3000), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0]))
def test_a_run_stops_just_when_its_goodput_is_lost(num: int, goodput: float) -> None:
    most = StopRule(goodput=goodput).most_misses(num)[2]
    assert (num - most) / num >= goodput
    assert (num - most - 1) / num < goodput
