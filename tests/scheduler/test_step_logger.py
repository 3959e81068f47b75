import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from tests.support.step_log import logged_steps
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.report.causes import Cause
from vllm_sarathi.report.summary import summarize
from vllm_sarathi.simulator.machine.calibration import fit, read_steps


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as found:
        yield found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "steps.jsonl"


def logging(path: Path, more: dict[str, Any] | None = None, **engine: Any) -> SchedulerLoop:
    return SchedulerLoop(
        engine.pop("scheduler", SarathiScheduler), {"step_log": str(path)} | (more or {}), **engine
    )


def run(loop: SchedulerLoop, clock: Clock, *durations_s: float) -> None:
    """Steps of these durations, each between its schedule and its result."""
    for duration_s in durations_s:
        output = loop.schedule()
        clock.now_s += duration_s
        loop._answer(output, loop._run(output))


def drain(loop: SchedulerLoop, clock: Clock) -> None:
    while loop.scheduler.has_unfinished_requests():
        run(loop, clock, 0.02)


def test_the_first_line_says_what_the_others_were_recorded_with(path: Path) -> None:
    logging(path, {"tpot_slo_ms": 50.0}, max_num_seqs=7)
    (line,) = map(json.loads, path.read_text().splitlines())
    begin = line["begin"]
    assert (begin["num_stages"], begin["max_num_seqs"]) == (1, 7)
    assert begin["max_num_batched_tokens"] == 2048
    assert (begin["num_kv_tokens"], begin["max_model_len"]) == (32_000, 8192)
    assert begin["kv_windows"] == [None]
    assert begin["v2_model_runner"] is False
    assert begin["settings"]["tpot_slo_ms"] == 50.0
    assert begin["classes"]["interactive"] == {"ttft_s": 2.0, "tpot_s": 0.05, "max_stall_s": 0.5}


def test_each_class_has_its_longest_gap_with_request_and_objective(
    path: Path, clock: Clock
) -> None:
    loop = logging(path, {"tbt_slo_ms": 40})
    for name, qos in (("a", "default"), ("b", "default"), ("c", "batch")):
        options = {"extra_args": {"qos": qos}} if qos != "default" else {}
        loop.add(name, 20, max_tokens=4, arrival_time=clock.now_s - 1, **options)
    run(loop, clock, 0.010, 0.015, 0.050, 0.010)
    first, second, third, _ = logged_steps(path)
    assert "gaps" not in first
    assert first["first_tokens"]["default"]["num"] == 2
    assert first["first_tokens"]["default"]["longest_s"] == pytest.approx(1.01)
    assert second["gaps"]["default"] == {
        "num": 2, "mean_s": 0.015, "longest_s": 0.015, "request_id": "a", "objective_s": 0.04,
        "num_late": 0,
    }  # fmt: skip
    assert second["gaps"]["batch"]["objective_s"] is None
    assert (third["gaps"]["default"]["num_late"], third["gaps"]["batch"]["num_late"]) == (2, 0)
    assert third["ended_s"] - third["scheduled_s"] == pytest.approx(0.050)


def test_a_request_that_ended_has_its_priority(path: Path, clock: Clock) -> None:
    loop = logging(path, scheduling_policy="priority")
    for name, priority in (("a", 0), ("b", 3)):
        loop.add(name, 20, max_tokens=2, arrival_time=clock.now_s, priority=priority)
    drain(loop, clock)
    begin, *_ = map(json.loads, path.read_text().splitlines())
    assert begin["begin"]["policy"] == "priority"
    requests = [one for line in logged_steps(path) for one in line.get("requests", ())]
    priorities = {one["request_id"]: one.get("priority", 0) for one in requests}
    assert priorities == {"a": 0, "b": 3}


def test_the_objective_that_auto_derives_stands_beside_gaps(path: Path, clock: Clock) -> None:
    loop = logging(path)
    loop.add("a", 20, max_tokens=100, arrival_time=clock.now_s)
    run(loop, clock, *[0.01] * 80, 0.5)
    *_, before, last = logged_steps(path)
    assert before["gaps"]["default"]["objective_s"] == pytest.approx(0.05, rel=0.1)
    assert (before["gaps"]["default"]["num_late"], last["gaps"]["default"]["num_late"]) == (0, 1)


def test_a_gap_over_a_preemption_says_so_and_the_report_names_it(path: Path, clock: Clock) -> None:
    loop = logging(path, {"tbt_slo_ms": 5000.0}, num_blocks=12)
    for i in range(2):
        loop.add(f"r{i}", 40, max_tokens=100, arrival_time=clock.now_s)
    drain(loop, clock)
    assert loop.preempted
    steps = logged_steps(path)
    assert sum(step["num_preempted"] for step in steps) == len(loop.preempted)
    (marked,) = {
        step["gaps"]["default"]["request_id"]
        for step in steps
        if step.get("gaps", {}).get("default", {}).get("was_preempted")
    }
    assert marked in loop.preempted
    worst = summarize(path)[0].worst.ranked()[0]
    assert (worst.waits.request_id, worst.cause) == (marked, Cause.PREEMPTED)


def test_every_request_that_ends_has_its_lengths_and_times(path: Path, clock: Clock) -> None:
    loop = logging(path, {"preset": "observe"}, enable_prefix_caching=True)
    for name, prompt in (("a", range(40)), ("b", [*range(32), *range(99)])):
        arrived_s = clock.now_s
        loop.add(name, prompt=list(prompt), max_tokens=3, arrival_time=arrived_s - 1)
        run(loop, clock, 0.010, 0.015, 0.050)
    first, second = [one for step in logged_steps(path) for one in step.get("requests", ())]
    assert first == {
        "request_id": "a", "qos": "default", "num_prompt_tokens": 40, "num_cached_tokens": 0,
        "arrived_s": first["arrived_s"], "num_output_tokens": 3, "longest_gap_s": 0.05,
        "ttft_s": pytest.approx(1.01), "e2e_s": pytest.approx(1.075),
    }  # fmt: skip
    assert (second["num_prompt_tokens"], second["num_cached_tokens"]) == (131, 32)
    assert second["arrived_s"] == pytest.approx(arrived_s - 1)


def test_a_request_that_was_aborted_ends_with_the_tokens_that_it_got(path: Path) -> None:
    loop = logging(path)
    loop.add("aborted", 20, max_tokens=30)
    for _ in range(3):
        loop.step()
    loop.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    loop.add("next", 20, max_tokens=2)
    loop.run()
    ended = [one for step in logged_steps(path) for one in step.get("requests", ())]
    assert [(one["num_output_tokens"], one.get("was_aborted")) for one in ended] == [
        (3, True),
        (2, None),
    ]


def test_queues_and_admissions_stand_beside_each_step(path: Path, clock: Clock) -> None:
    loop = logging(path, max_num_seqs=2)
    for i in range(5):
        loop.add(f"r{i}", 20, max_tokens=3, arrival_time=clock.now_s)
    drain(loop, clock)
    first, *_, last = logged_steps(path)
    assert (first["num_running"], first["num_waiting"], first["num_admitted"]) == (2, 3, 2)
    assert (last["num_running"], last["num_waiting"]) == (1, 0)
    assert 0 < last["kv_usage"] < 0.1


@pytest.mark.parametrize("shed", [False, True])
def test_who_is_late_is_counted_by_class(path: Path, clock: Clock, shed: bool) -> None:
    loop = logging(path, {"ttft_slo_ms": 500.0, "shed": shed}, max_num_seqs=1)
    loop.add("runs", 20, max_tokens=60, arrival_time=clock.now_s)
    run(loop, clock, 0.02)
    loop.add("late", 20, max_tokens=2, arrival_time=clock.now_s)
    loop.add("never due", 20, max_tokens=2, arrival_time=clock.now_s, extra_args={"qos": "batch"})
    drain(loop, clock)
    name, other = ("shed", "relegated") if shed else ("relegated", "shed")
    steps = logged_steps(path)
    assert [step[name] for step in steps if name in step] == [{"default": 1}]
    assert not any(other in step for step in steps)


def test_a_step_ends_when_its_tokens_come_however_long_it_takes_to_learn_from_it(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learns_slowly(*_: Any) -> None:
        clock.now_s += 0.005

    monkeypatch.setattr(StepTimeModel, "observe", learns_slowly)
    loop = logging(path)
    loop.add("a", 20, max_tokens=10, arrival_time=clock.now_s)
    run(loop, clock, 0.02, 0.02, 0.02)
    steps = logged_steps(path)
    assert [step["ended_s"] - step["scheduled_s"] for step in steps] == pytest.approx([0.02] * 3)
    assert steps[2]["gaps"]["default"]["longest_s"] == pytest.approx(0.025)


def test_time_outside_of_the_model_is_told(path: Path, clock: Clock) -> None:
    loop = logging(path)
    loop.add("a", 20, max_tokens=10, arrival_time=clock.now_s)
    run(loop, clock, 0.02, 0.02)
    clock.now_s += 0.3
    run(loop, clock, 0.02)
    assert [step["between_s"] for step in logged_steps(path)] == [0.0, 0.0, 0.3]
    assert summarize(path)[0].worst.ranked()[0].cause is Cause.ENGINE_CORE


def test_time_without_requests_is_not_outside_of_the_model(path: Path, clock: Clock) -> None:
    loop = logging(path)
    for name in ("a", "b"):
        loop.add(name, 20, max_tokens=3, arrival_time=clock.now_s)
        drain(loop, clock)
        clock.now_s += 5.0
    assert max(step["between_s"] for step in logged_steps(path)) == 0.0
    assert summarize(path)[0].idle_s == pytest.approx(5.0, abs=0.01)


def test_a_pipeline_tells_its_steps_in_flight_and_idle_stages(path: Path, clock: Clock) -> None:
    loop = logging(path, in_flight=2, pipeline_parallel_size=2)
    for i in range(8):
        loop.add(f"r{i}", 20, max_tokens=60, arrival_time=clock.now_s)
    while loop.scheduler.has_unfinished_requests():
        clock.now_s += 0.010
        loop.step()
    steps = logged_steps(path)
    assert max(step["num_in_flight"] for step in steps) == 2
    assert 0 <= steps[40]["stage_idle_share"] < 0.2


def test_requests_that_ended_are_forgotten(path: Path) -> None:
    loop = logging(path, scheduler=AsyncSarathiScheduler)
    loop.add("ends", 20, max_tokens=3)
    loop.add("aborted", 20, max_tokens=30)
    for _ in range(5):
        loop.step()
    loop.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    loop.add("next", 20, max_tokens=2)
    loop.run()
    loop.add("last", 20, max_tokens=2)
    loop.step()
    assert set(loop.scheduler.step_observer._step_logger._gaps._answers) <= {"next", "last"}


def test_without_a_step_log_nothing_of_it_is_gathered() -> None:
    loop = SchedulerLoop(SarathiScheduler)
    loop.add("a", 20, max_tokens=3)
    loop.step()
    assert not loop.scheduler.step_observer.logs_steps
    loop.schedule()
    (flying,) = loop.scheduler.step_observer._timer.in_flight
    assert flying.engine is None


def test_calibrate_reads_the_log(path: Path, clock: Clock) -> None:
    loop = logging(path)
    for i in range(4):
        loop.add(f"r{i}", 100, max_tokens=60, arrival_time=clock.now_s)
    drain(loop, clock)
    assert fit(read_steps(path)).num_steps == len(logged_steps(path))


def test_requests_that_end_while_nothing_runs_are_forgotten(path: Path) -> None:
    loop = logging(path)
    loop.add("aborted", 20, max_tokens=30)
    for _ in range(3):
        loop.step()
    loop.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    loop.schedule()
    assert not loop.scheduler.step_observer._step_logger._gaps._answers
