import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.recorded import LENGTHS, record
from tests.support.step_log import BEGIN, EPOCH_S, placed, step, write_log
from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator import Deployment, Synthetic
from vllm_sarathi.simulator.load.recording import read_recording
from vllm_sarathi.simulator.results.recorded import recorded_report


def ended(arrived_s: float, **more: Any) -> dict[str, Any]:
    """A request in a step's line."""
    found = {"request_id": "a", "qos": "default", "num_prompt_tokens": 100, "num_output_tokens": 3}
    times = {"arrived_s": EPOCH_S + arrived_s, "ttft_s": 0.02, "e2e_s": 0.06, "longest_gap_s": 0.03}
    return found | times | more


def test_requests_come_back_as_they_came(
    tmp_path: Path, machine: Callable[..., Deployment]
) -> None:
    record(tmp_path / "steps.jsonl", machine())
    workload = read_recording(tmp_path / "steps.jsonl").workload()
    asked = Synthetic(LENGTHS, 60).at(20.0, 0)
    assert workload.lengths.num_prompt.tolist() == asked.lengths.num_prompt.tolist()
    assert workload.lengths.num_output.tolist() == asked.lengths.num_output.tolist()
    arrival_s = (asked.arrival_s - asked.arrival_s[0]).tolist()
    assert workload.arrival_s.tolist() == pytest.approx(arrival_s, abs=1e-5)


def test_recorded_figures_are_those_of_the_run(
    tmp_path: Path, machine: Callable[..., Deployment]
) -> None:
    was = record(tmp_path / "steps.jsonl", machine()).summary()
    recording = read_recording(tmp_path / "steps.jsonl")
    told = recorded_report(recording, recording.workload()).summary()
    for figure in ("ttft_p50_s", "ttft_p99_s", "tpot_p99_ms", "e2e_p90_s", "tbt_p50_ms"):
        assert told[figure] == pytest.approx(was[figure], rel=0.01), figure
    for figure in ("finished_requests", "steps", "preemptions"):
        assert told[figure] == was[figure], figure


def test_the_last_run_is_read(tmp_path: Path) -> None:
    runs = [[BEGIN, *placed([step(requests=[ended(0.0)] * num)])] for num in (1, 2)]
    recording = read_recording(write_log(tmp_path / "s.jsonl", *runs[0], *runs[1]))
    assert (recording.num_runs, len(recording.requests)) == (2, 2)


def test_what_came_before_a_log_that_was_cut_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = placed([step(), step(requests=[ended(-1.0), ended(0.01)])])
    recording = read_recording(write_log(tmp_path / "s.jsonl", *lines))
    assert not recording.is_whole
    assert (len(recording.requests), recording.num_running_before) == (1, 1)


def test_what_had_not_ended_is_left_out_and_counted(tmp_path: Path) -> None:
    first = step(num_running=2, num_admitted=2, requests=[ended(0.0)])
    last = step(num_running=2, num_admitted=1, num_waiting=3)
    recording = read_recording(write_log(tmp_path / "s.jsonl", BEGIN, *placed([first, last])))
    assert (len(recording.requests), recording.num_unfinished) == (1, 5)


def test_prompts_lose_what_the_prefix_cache_held(tmp_path: Path) -> None:
    line = step(requests=[ended(0.0, num_cached_tokens=96)])
    recording = read_recording(write_log(tmp_path / "s.jsonl", BEGIN, *placed([line])))
    assert recording.workload().lengths.num_prompt.tolist() == [4]
    assert recording.cached_share == 0.96


def test_each_request_has_the_objectives_of_its_class(tmp_path: Path) -> None:
    line = step(requests=[ended(0.0), ended(0.1, qos="interactive")])
    workload = read_recording(write_log(tmp_path / "s.jsonl", BEGIN, *placed([line]))).workload()
    asked = [workload.classes[index].objectives for index in workload.class_of]
    assert asked == [Objectives(tbt_s=0.05), Objectives(ttft_s=2.0, tpot_s=0.05)]


def test_each_request_has_its_priority(tmp_path: Path) -> None:
    line = step(requests=[ended(0.0), ended(0.1, priority=-2), ended(0.2, qos="interactive")])
    workload = read_recording(write_log(tmp_path / "s.jsonl", BEGIN, *placed([line]))).workload()
    assert [workload.classes[index].priority for index in workload.class_of] == [0, -2, 0]


def test_a_log_without_requests_is_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path / "s.jsonl", json.dumps(BEGIN) + "\n", *placed([step()]))
    with pytest.raises(ValueError, match=r"s\.jsonl' holds no request .*--sarathi-step-log"):
        read_recording(path)
