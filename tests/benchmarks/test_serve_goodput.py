"""The goodput of a real server is counted, searched and shown as it is said to be."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serve_goodput
from serve_goodput import (
    FIRST,
    LATER,
    LEAST_OUTPUT,
    OURS,
    RUNG,
    SHARE,
    Facts,
    best_stock,
    by_load,
    details_table,
    figures,
    goodput_table,
    highest_held,
    our_flags,
    requests,
    schedule,
)
from support.bench_client import as_json, goodput_flags, write_trace

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator import Lengths

ASKED = Objectives(ttft_s=1.5, tpot_s=0.1)


def saved(**others: Any) -> dict[str, Any]:
    """What the client saves of five requests: in time, late twice, one token, failed."""
    return {
        "num_prompts": 5,
        "duration": 10.0,
        "completed": 4,
        "failed": 1,
        "request_goodput": 0.2,
        "output_throughput": 3.1,
        "input_lens": [7] * 5,
        "output_lens": [11, 11, 11, 1, 0],
        "start_times": [100.0, 101.0, 102.0, 103.0, 104.0],
        "ttfts": [1.0, 2.0, 1.0, 1.6, 0.0],
        "latencies": [1.5, 2.5, 3.0, 1.6, 0.0],
        "errors": ["", "", "", "", "refused"],
        "generated_texts": ["long"] * 5,
        **others,
    }


def run(server: str, share: float, load: str = "1.5x", rate: float = 3.0) -> dict[str, Any]:
    """A run as the benchmark keeps it."""
    shown = figures(saved(), ASKED) | {SHARE: share}
    return {"server": server, "load": load, "rate": rate, "seed": 0, "figures": shown}


def test_shares_are_of_the_requests_offered() -> None:
    found = figures(saved(), ASKED)
    assert found[SHARE] == pytest.approx(2 / 5)
    assert found[FIRST] == pytest.approx(2 / 5)
    assert found[LATER] == pytest.approx(3 / 5)  # one token has no later one: in time


def test_what_failed_is_in_no_percentile() -> None:
    found = figures(saved(), ASKED)
    assert found["TTFT p50, ms"] == pytest.approx(1300.0)  # 1000 with it


def test_a_run_in_which_all_failed_has_no_times() -> None:
    none = saved(request_goodput=0.0, errors=["refused"] * 5)
    found = figures(none, ASKED)
    assert (found[SHARE], found["TTFT p50, ms"]) == (0.0, None)


def test_raw_times_are_kept_from_the_beginning_and_texts_are_not() -> None:
    kept = as_json(saved())
    assert kept["start_times"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert "generated_texts" not in kept


def test_the_client_and_our_server_are_told_the_same() -> None:
    assert goodput_flags(ASKED) == ("--goodput", "ttft:1500", "tpot:100")
    ours = our_flags(ASKED)
    assert ours[ours.index("--sarathi-ttft-slo-ms") + 1] == "1500"
    assert ours[ours.index("--sarathi-tpot-slo-ms") + 1] == "100"


def test_a_trace_has_the_lengths_and_no_two_prompts_alike(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    write_trace(Lengths(np.array([1, 16, 33]), np.array([2, 3, 4])), file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["input_length"], line["output_length"]) for line in lines] == [
        (1, 2),
        (16, 3),
        (33, 4),
    ]
    assert [line["hash_ids"] for line in lines] == [[0], [1], [2, 3, 4]]


def test_requests_are_shorter_by_the_scale_with_a_time_per_token() -> None:
    whole, scaled = requests("sharegpt", 1.0, 500, 0), requests("sharegpt", 100.0, 500, 0)
    assert scaled.num_prompt.mean() == pytest.approx(whole.num_prompt.mean() / 100, rel=0.05)
    assert scaled.num_output.min() == LEAST_OUTPUT


def test_objectives_are_multiples_of_what_was_measured() -> None:
    facts = Facts(prefill_s=0.2, step_s=0.05, mean_prompt=65.0, mean_output=16.0)
    assert facts.objectives(8.0, 3.0) == Objectives(ttft_s=1.6, tpot_s=0.15)
    assert facts.rate == pytest.approx(1 / 0.3)


def test_the_search_asks_first_who_held_and_no_more_than_needed() -> None:
    holds = {"a": 1.0, "b": 3.0}
    asked: list[tuple[str, float]] = []

    def share(setting: str, rate: float) -> float:
        asked.append((setting, rate))
        return 0.95 if rate <= holds[setting] else 0.5

    assert highest_held([4.0, 1.0, 2.0, 3.0, 5.0], ["a", "b"], share) == 3.0
    assert asked == [("a", 3), ("b", 3), ("b", 4), ("a", 4)]


@pytest.mark.parametrize("highest", [1.0, 2.0, 3.0])
def test_the_search_finds_each_rung(highest: float) -> None:
    ladder = [1.0, 2.0, 3.0]
    assert highest_held(ladder, ["a"], lambda _, rate: float(rate <= highest)) == highest


def test_the_search_goes_beyond_a_ladder_that_is_too_low() -> None:
    held = highest_held([1.0, 2.0], ["a"], lambda _, rate: float(rate <= 2.5))
    assert held == pytest.approx(2.0 * RUNG)


def test_the_search_goes_below_a_ladder_that_is_too_high() -> None:
    held = highest_held([2.0, 3.0], ["a"], lambda _, rate: float(rate <= 1.9))
    assert held == pytest.approx(2.0 / RUNG)


def test_a_load_that_no_setting_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer objectives"):
        highest_held([2.0, 3.0], ["a"], lambda _, rate: 0.0)


def test_every_server_gets_every_load_and_begins_in_turn() -> None:
    runs = list(schedule(["a", "b", OURS], [1.0, 1.5], seeds=2))
    assert set(Counter(runs).values()) == {1}
    assert len(runs) == 12
    assert [name for _, _, name in runs[::3]] == ["a", "b", OURS, "a"]


def test_the_best_stock_server_is_that_of_the_load() -> None:
    found = by_load(
        [
            *(run("2048/8", share) for share in (0.2, 0.4)),
            *(run("64/16", share) for share in (0.1, 0.3)),
            *(run(OURS, share) for share in (0.6, 0.6)),
            run("2048/8", 0.9, "1x", 2.0),
            run("64/16", 0.95, "1x", 2.0),
            run(OURS, 0.95, "1x", 2.0),
        ]
    )
    assert [best_stock(servers) for servers in found.values()] == ["64/16", "2048/8"]
    rows = goodput_table(found).splitlines()
    assert rows[2] == "| 1x (2.00/s) | 90.0% | **95.0%** | 95.0% | 1.00 (1.00 to 1.00) |"
    assert rows[3] == "| 1.5x (3.00/s) | **30.0%** | 20.0% | 60.0% | 2.00 (1.50 to 3.00) |"


@pytest.mark.parametrize(("ours", "shown"), [(0.5, "inf"), (0.0, "1.00")])
def test_a_stock_server_that_has_nothing_in_time_is_no_error(ours: float, shown: str) -> None:
    found = by_load([run("64/16", 0.0), run(OURS, ours)])
    assert f"{shown} ({shown} to {shown})" in goodput_table(found)


def test_details_show_what_was_late() -> None:
    table = details_table(by_load([run("64/16", 0.5), run(OURS, 0.5)]))
    assert "| 1.5x (3.00/s) | stock 64/16 | 50.0% | 40.0% | 60.0% | 1300.0 |" in table


def test_stock_settings_are_budget_and_max_num_seqs() -> None:
    flags = serve_goodput.stock_flags("128/8")
    assert flags == ("--max-num-batched-tokens", "128", "--max-num-seqs", "8")
