from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.latency import RequestTimes
from vllm_sarathi.policy.deadlines import Playback

TBT_S = 0.05


def test_early_tokens_earn_slack() -> None:
    playback = Playback(TBT_S)
    for now_s in (0.00, 0.01, 0.02, 0.03):
        playback.played("fast", 1, now_s)
    assert playback.slack_s(0.03) == pytest.approx(3 * TBT_S - 0.03)


def test_the_request_with_least_slack_counts() -> None:
    playback = Playback(TBT_S)
    playback.played("fast", 4, 0.0)
    playback.played("slow", 1, 0.0)
    assert playback.slack_s(0.0) == 0.0
    playback.forget(["slow"])
    assert playback.slack_s(0.0) == pytest.approx(3 * TBT_S)
    playback.forget(["fast", "never seen"])
    assert playback.slack_s(0.0) == inf


@given(st.lists(st.floats(0.001, 0.2), min_size=1, max_size=40))
def test_a_step_that_takes_the_objective_and_the_slack_makes_no_token_late(
    gaps_s: list[float],
) -> None:
    playback, now_s, times_s = Playback(TBT_S), 0.0, [0.0]
    playback.played("r", 1, now_s)
    for gap_s in gaps_s:
        now_s += min(gap_s, TBT_S + playback.slack_s(now_s))
        playback.played("r", 1, now_s)
        times_s.append(now_s)
    fluidity = RequestTimes(0.0, times_s).fluidity(ttft_s=1e-9, tbt_s=TBT_S + 1e-9)
    assert fluidity == 1.0


def test_a_late_token_restarts_the_schedule() -> None:
    playback = Playback(TBT_S)
    playback.played("r", 1, 0.0)
    playback.played("r", 1, 10.0)
    assert playback.slack_s(10.0) == pytest.approx(0.0)
    playback.played("r", 1, 10.01)
    assert playback.slack_s(10.01) == pytest.approx(TBT_S - 0.01)
