import pytest

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.least_gap import WINDOW, LeastGap

TIGHT = {"tbt_slo_ms": 12, "tpot_slo_ms": 6, "ttft_slo_ms": 500}


def seen(*durations_s: float, num_stages: int = 1, tokens_per_step: int = 1) -> LeastGap:
    """A whole window of steps of each duration."""
    least = LeastGap.of(SarathiConfig.from_mapping(TIGHT), num_stages, tokens_per_step)
    for duration_s in durations_s:
        for _ in range(WINDOW):
            least.observe(duration_s)
    return least


def test_nothing_is_out_of_reach_before_enough_steps_were_seen() -> None:
    assert seen().gap_s is None
    assert seen().out_of_reach() == {}


def test_objectives_shorter_than_a_step_are_out_of_reach() -> None:
    assert seen(0.010).out_of_reach() == {"tpot_slo_ms": 6}
    assert seen(0.020).out_of_reach() == {"tbt_slo_ms": 12, "tpot_slo_ms": 6}
    assert seen(0.001).out_of_reach() == {}


def test_the_shortest_window_counts() -> None:
    assert seen(0.020, 0.005, 0.040).gap_s == 0.005


def test_a_pause_now_and_then_does_not_count() -> None:
    least = seen()
    for i in range(WINDOW):
        least.observe(0.010 if i % 4 else 3.0)
    assert least.gap_s == 0.010


def test_a_gap_spans_a_step_of_each_stage() -> None:
    assert seen(0.010, num_stages=4).gap_s == pytest.approx(0.040)


def test_drafts_shorten_the_mean_and_not_the_gap() -> None:
    assert seen(0.020, tokens_per_step=4).out_of_reach() == {"tbt_slo_ms": 12}
