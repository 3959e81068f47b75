import pytest

from vllm_sarathi.latency import Objectives, RequestTimes, goodput, percentile


def test_ttft_counts_from_arrival_and_tbt_from_the_token_before() -> None:
    times = RequestTimes(1.0, [1.5, 1.6, 1.9])
    assert times.ttft_s == pytest.approx(0.5)
    assert times.tbts_s == pytest.approx([0.1, 0.3])
    assert times.tpot_s == pytest.approx(0.2)
    assert times.e2e_s == pytest.approx(0.9)


def test_what_is_undefined_is_none() -> None:
    nothing, one = RequestTimes(0.0, []), RequestTimes(0.0, [1.0])
    assert (nothing.ttft_s, nothing.e2e_s, nothing.fluidity(1, 1)) == (None, None, None)
    assert (one.tpot_s, one.tbts_s) == (None, [])
    assert RequestTimes(0.0, [1.0, 2.0], finished=False).e2e_s is None
    assert percentile([], 50) is None
    assert goodput([], 0) is None


def test_an_early_token_leaves_its_slack_to_the_next() -> None:
    assert RequestTimes(0.0, [0.1, 1.9, 2.9]).fluidity(ttft_s=1.0, tbt_s=1.0) == 1.0


def test_a_stall_costs_as_many_deadlines_as_it_spans() -> None:
    # Due at 1 and 2; the second token comes at 4.5 and misses those of 2, 3 and 4.
    times = RequestTimes(0.0, [1.0, 4.5])
    assert times.fluidity(ttft_s=1.0, tbt_s=1.0) == pytest.approx(1 / 4)


def test_the_schedule_restarts_from_a_late_token() -> None:
    times = RequestTimes(0.0, [3.5, 4.5, 5.5])
    assert times.fluidity(ttft_s=1.0, tbt_s=1.0) == pytest.approx(2 / 5)


def test_every_gap_must_keep_to_the_objective() -> None:
    times = RequestTimes(0.0, [0.5, 0.6, 0.9])
    assert times.meets(Objectives(ttft_s=0.5, tbt_s=0.31))
    assert not times.meets(Objectives(tbt_s=0.2))
    assert not RequestTimes(0.0, [0.5], finished=False).meets(Objectives())


def test_goodput_counts_offered_requests() -> None:
    assert goodput([True, False], 4) == 0.25


def test_an_objective_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="tbt_s=0"):
        Objectives(tbt_s=0)


def test_tpot_caps_the_mean_gap_and_leaves_single_gaps_free() -> None:
    times = RequestTimes(0.0, [0.5, 0.6, 0.9])
    assert times.meets(Objectives(tpot_s=0.21))
    assert not times.meets(Objectives(tpot_s=0.19))
    assert RequestTimes(0.0, [0.5]).meets(Objectives(tpot_s=0.01))
