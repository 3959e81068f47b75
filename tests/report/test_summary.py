from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.step_log import BEGIN, gap, placed, step
from vllm_sarathi.report.series import NUM_BINS, Bins, idle_bins
from vllm_sarathi.report.summary import summarize


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=50))
def test_bins_that_grow_keep_sums_and_maxima(times_s: list[float]) -> None:
    bins = Bins()
    for number, time_s in enumerate(sorted(times_s), 1):
        bins.reach(time_s)
        where = np.array([int(time_s / bins.width_s)])
        bins.add("sum", where, np.array([1.0]))
        bins.raise_to("most", where, np.array([float(number)]))
    assert bins.total("sum") == len(times_s)
    assert bins.most("most").max() == len(times_s)
    assert bins.sum("sum")[-1] > 0
    assert len(bins.middle_s) == bins.num_used <= NUM_BINS
    assert bins.middle_s[-1] == pytest.approx(max(times_s), abs=bins.width_s)


def test_the_last_run_of_a_file_counts(log: Callable[..., Path]) -> None:
    steps = list(placed([step()] * 5))
    summary = summarize(log(*steps, BEGIN, BEGIN, *steps[:3], BEGIN))[0]
    assert (summary.num_runs, summary.num_steps) == (2, 3)
    assert summary.begin.max_num_seqs == 256


def test_a_run_that_only_failed_so_far_does_not_hide_the_one_before(
    log: Callable[..., Path],
) -> None:
    fault = {"fault": "planning", "error": "boom"}
    assert summarize(log(BEGIN, *placed([step()] * 5), BEGIN, fault))[0].num_steps == 5


def test_a_cut_off_line_and_others_that_cannot_be_read_are_left_out(
    log: Callable[..., Path],
) -> None:
    steps = list(placed([step()] * 5))
    summary, file = summarize(log(BEGIN, *steps[:3], "{]\n", {"duration_s": -1}, *steps[3:], '{"w'))
    assert summary.num_steps == 5
    assert (file.num_bad, file.first_bad, file.is_cut_off) == (2, 5, True)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "is empty"),
        ([BEGIN], "holds no step yet"),
        (["arrived_at,num_prefill_tokens\n", "0.1,20\n"], "line 1 is none"),
        (["\x00\x01\n", "[1]\n"], "line 1 is none"),
        ([BEGIN, step()], "line 2 is none"),
        ([{"usage": 3}], "line 1 is none"),
        (["hello"], "line 1 is none"),
    ],
)
def test_a_file_that_is_no_step_log_is_refused_by_name(
    lines: list[dict[str, object] | str], said: str, log: Callable[..., Path]
) -> None:
    path = log(*lines)
    with pytest.raises(ValueError, match=said) as error:
        summarize(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.jsonl.*cannot be read"):
        summarize(tmp_path / "missing.jsonl")


def test_a_clock_that_is_set_back_or_forth_bends_no_axis(log: Callable[..., Path]) -> None:
    first, second, third = placed([step()] * 3)
    jumps = [first, second | {"ended_s": 1.0}, third | {"ended_s": 9e10}]
    summary = summarize(log(BEGIN, *jumps))[0]
    assert summary.num_steps == 3
    assert summary.bins.total("steps") == 3
    assert summary.end_s > 0


def test_idle_time_lies_between_steps(log: Callable[..., Path]) -> None:
    summary = summarize(log(BEGIN, *placed([step()] * 11, idle_s=0.08)))[0]
    assert summary.idle_s == pytest.approx(0.8, abs=1e-4)
    assert summary.bins.total("busy_s") == pytest.approx(0.22)


def test_classes_have_their_own_series(log: Callable[..., Path]) -> None:
    gaps = {"default": gap(0.02), "interactive": gap(0.02, num=2, objective_s=0.01)}
    summary = summarize(log(BEGIN, *placed([step(gaps=gaps)] * 50)))[0]
    assert summary.gaps["default"].late_share == 0
    assert summary.gaps["interactive"].num == 100
    assert summary.bins.total("gap default num") == 200
    assert summary.tpot_s("interactive") == 0.05


def test_bins_within_a_long_step_are_busy_and_those_without_a_step_are_idle(
    log: Callable[..., Path],
) -> None:
    steps = list(placed([step(2.0), step(2.0)], idle_s=4.0))
    bins = summarize(log(BEGIN, *steps))[0].bins
    idle = idle_bins(bins)
    assert [bool(idle[int(time_s / bins.width_s)]) for time_s in (1.0, 4.0, 7.0)] == [
        False,
        True,
        False,
    ]
