import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from tests.support.metrics import found, sample
from tests.support.scheduler_loop import SchedulerLoop
from tests.support.step_log import logged_steps
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.step import StepPlan, StepView
from vllm_sarathi.scheduler import observer
from vllm_sarathi.scheduler.mixin import SarathiMixin


class Clock:
    """Advances by the made-up duration of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1e6
        for name in ("time", "monotonic"):
            monkeypatch.setattr(f"time.{name}", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(loop: SchedulerLoop, clock: Clock) -> None:
    """10 ms a step and 0.1 ms a token."""
    while loop.scheduler.has_unfinished_requests():
        output = loop.schedule()
        clock.now_s += 0.010 + 0.0001 * output.total_num_scheduled_tokens
        loop._answer(output, loop._run(output))


def test_a_pipeline_shows_how_even_it_is(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, in_flight=2, pipeline_parallel_size=2)
    for i in range(8):
        loop.add(f"r{i}", 20, max_tokens=60, arrival_time=clock.now_s)
    while loop.scheduler.has_unfinished_requests():
        clock.now_s += 0.010
        loop.step()
    assert sample(loop, "micro_batch_imbalance_ratio_count") > 50
    assert sample(loop, "micro_batch_imbalance_ratio_sum") < 1.1 * sample(
        loop, "micro_batch_imbalance_ratio_count"
    )
    assert sample(loop, "stage_idle_ratio_sum") < 0.1 * sample(loop, "stage_idle_ratio_count")


def mixed(settings: dict[str, object], clock: Clock) -> SchedulerLoop:
    loop = SchedulerLoop(SarathiScheduler, settings)
    for i in range(4):
        loop.add(f"decode{i}", 20, max_tokens=200, arrival_time=clock.now_s)
    for i in range(6):
        loop.add(f"long{i}", 900, max_tokens=20, arrival_time=clock.now_s)
    run(loop, clock)
    return loop


def test_the_model_learns_the_machine_and_the_objective_holds(clock: Clock) -> None:
    loop = mixed({"tbt_slo_ms": 40}, clock)
    assert sample(loop, "late_tokens_total") == 0
    assert sample(loop, "measured_step_seconds_count") == len(loop.batches)
    predicted = sample(loop, "predicted_step_seconds_sum")
    assert predicted == pytest.approx(sample(loop, "measured_step_seconds_sum"), rel=0.1)
    assert any("P2" in batch for batch in loop.batches if batch.startswith("D"))


def timed(loop: SchedulerLoop, clock: Clock, duration_s: float) -> None:
    """A step of a made-up duration."""
    output = loop.schedule()
    clock.now_s += duration_s
    loop._answer(output, loop._run(output))


def test_a_gap_spans_the_steps_that_decodes_sat_out(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, {"tbt_slo_ms": 40})
    loop.add("decode", 20, max_tokens=200, arrival_time=clock.now_s)
    timed(loop, clock, 0.010)
    policy, following = loop.scheduler.batch_policy, loop.scheduler.step_observer
    plan: Callable[[StepView], StepPlan] = policy.builder.plan
    loop.add("long", 900, max_tokens=20, arrival_time=clock.now_s)
    timed(loop, clock, 0.015)
    waits = iter((True, True, False, False))

    class Waiting:
        def plan(self, view: StepView) -> StepPlan:
            seen = view.without_decodes() if (wait := next(waits)) else view
            return replace(plan(seen), pauses_decodes=wait)

    loop.scheduler.batch_policy = replace(policy, builder=Waiting())
    for paused_s in (0.0, 0.015, 0.030, 0.0):
        assert following.outlook.paused_s == pytest.approx(paused_s)
        timed(loop, clock, 0.015)
    assert sample(loop, "late_tokens_total") == 1
    assert sample(loop, "decode_pauses_total") == 2


def test_a_clock_that_stands_still_does_not_keep_decodes_waiting(clock: Clock) -> None:
    loop = mixed({"tbt_slo_ms": 40}, clock)
    loop.scheduler.batch_policy = replace(loop.scheduler.batch_policy, pauses_decodes=True)
    for i in range(4):
        loop.add(f"late{i}", 20, max_tokens=20, arrival_time=clock.now_s)
        loop.add(f"more{i}", 2000, max_tokens=2, arrival_time=clock.now_s)
    for _ in range(200):
        timed(loop, clock, 0.0)
    assert all(map(len, loop.outputs.values()))


def test_misses_of_an_impossible_objective_are_counted_and_everyone_is_served(
    clock: Clock,
) -> None:
    loop = mixed({"tbt_slo_ms": 0.1, "ttft_slo_ms": 15.0}, clock)
    assert sample(loop, "late_tokens_total") > 500
    assert sample(loop, "objectives_missed_total", qos="default", kind="ttft") >= 6
    assert all(loop.outputs.values())


def test_auto_shows_the_objective_it_derived(clock: Clock) -> None:
    loop = mixed({}, clock)
    assert sample(loop, "tbt_objective_seconds") == pytest.approx(5 * 0.0104, rel=0.1)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(
        observer.logger, "warning", lambda text, *values: found.append(text % values)
    )
    return found


def decoding(clock: Clock, settings: dict[str, object], **engine_args: Any) -> SchedulerLoop:
    """One request that decodes alone, 10.1 ms a token."""
    loop = SchedulerLoop(SarathiScheduler, settings, **engine_args)
    loop.add("decode", 20, max_tokens=200, arrival_time=clock.now_s)
    run(loop, clock)
    return loop


@pytest.mark.parametrize(
    ("settings", "missed"),
    [
        ({"tbt_slo_ms": 0.05}, "tbt_slo_ms=0.05"),
        ({"preset": "observe", "tbt_slo_ms": 9}, "tbt_slo_ms=9"),
        ({"tpot_slo_ms": 5}, "tpot_slo_ms=5"),
        ({"ttft_slo_ms": 2}, "ttft_slo_ms=2"),
        ({"preset": "stall-free", "e2e_slo_ms": 5}, "e2e_slo_ms=5"),
        (
            {"tbt_slo_ms": 40, "qos_classes": {"gold": {"tpot_slo_ms": 0.025}}},
            "qos_classes.gold.tpot_slo_ms=0.025",
        ),
    ],
)
def test_objectives_that_cannot_be_met_are_told_once_with_what_was_measured(
    settings: dict[str, object], missed: str, clock: Clock, warnings: list[str]
) -> None:
    loop = decoding(clock, settings)
    loop.add("later", 20, max_tokens=200, arrival_time=clock.now_s)
    run(loop, clock)
    (said,) = warnings
    assert f"cannot be met: {missed} (ms). " in said
    assert "takes 10.1 ms" in said
    assert sample(loop, "least_gap_seconds") == pytest.approx(0.0101)


def test_objectives_that_can_be_met_are_told_nothing(clock: Clock, warnings: list[str]) -> None:
    loop = decoding(clock, {"tbt_slo_ms": 20, "ttft_slo_ms": 20, "e2e_slo_ms": 5000})
    assert sample(loop, "least_gap_seconds") == pytest.approx(0.0101)
    assert warnings == []


def test_the_least_gap_is_absent_until_it_was_measured(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, {"tbt_slo_ms": 0.05})
    loop.add("decode", 20, max_tokens=40, arrival_time=clock.now_s)
    run(loop, clock)
    assert found(loop, "least_gap_seconds") is None


@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
def test_a_trace_holds_a_line_for_each_step(ours: type[SarathiMixin], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    loop = SchedulerLoop(ours, {"step_log": str(trace)})
    loop.add("a", 100, max_tokens=5)
    loop.run()
    steps = logged_steps(trace)
    assert [step["num_prefill_tokens"] for step in steps] == [100, 0, 0, 0, 0]
    assert [step["work"]["num_tokens"] for step in steps] == [100, 1, 1, 1, 1]
    assert all(step["duration_s"] > 0 for step in steps)
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600


def test_a_disk_that_is_full_ends_the_trace_and_not_the_engine() -> None:
    loop = SchedulerLoop(SarathiScheduler, {"step_log": "/dev/full"})
    loop.add("a", 100, max_tokens=5)
    loop.run()
    assert len(loop.outputs["a"]) == 5


def test_a_trace_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "trace.jsonl")
    with pytest.raises(ValueError, match=r"step_log=.*cannot be written"):
        SchedulerLoop(SarathiScheduler, {"step_log": path})


def test_requests_that_end_or_are_aborted_are_forgotten() -> None:
    loop = SchedulerLoop(SarathiScheduler, {"tbt_slo_ms": 50, "max_stall_ms": 200})
    loop.add("ends", 20, max_tokens=3)
    loop.add("aborted", 20, max_tokens=30)
    for _ in range(5):
        loop.step()
    begun = loop.scheduler.step_observer.promises.answers.begun
    assert set(begun) == {"aborted"}
    loop.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    loop.add("next", 20, max_tokens=1)
    loop.run()
    assert begun == {}


def verdicts(loop: SchedulerLoop, qos: str) -> dict[str, tuple[float, float]]:
    """Requests that met and missed each kind of objective, and all of theirs."""
    counts = {
        kind: tuple(
            found(loop, f"objectives_{verdict}_total", qos=qos, kind=kind) or 0
            for verdict in ("attained", "missed")
        )
        for kind in ("ttft", "tpot", "tbt", "e2e")
    }
    counts["all"] = tuple(
        found(loop, f"requests_{verdict}_total", qos=qos) or 0 for verdict in ("attained", "missed")
    )
    return {kind: (met, missed) for kind, (met, missed) in counts.items() if met or missed}


def test_each_class_shows_which_objectives_its_requests_met(clock: Clock) -> None:
    slow = {"ttft_slo_ms": 30.0, "tpot_slo_ms": 2.0, "tbt_slo_ms": None}
    loop = SchedulerLoop(SarathiScheduler, {"tbt_slo_ms": 40, "qos_classes": {"slow": slow}})
    for i in range(3):
        loop.add(f"quick{i}", 20, extra_args={"qos": "interactive"}, arrival_time=clock.now_s)
        loop.add(f"slow{i}", 20, extra_args={"qos": "slow"}, arrival_time=clock.now_s)
    loop.add("own", 20, extra_args={"e2e_slo_ms": 20}, arrival_time=clock.now_s)
    loop.add("bulk", 20, extra_args={"qos": "batch"}, arrival_time=clock.now_s)
    run(loop, clock)
    assert verdicts(loop, "interactive") == {
        "ttft": (3, 0), "tpot": (3, 0), "tbt": (3, 0), "all": (3, 0)
    }  # fmt: skip
    assert verdicts(loop, "slow") == {"ttft": (3, 0), "tpot": (0, 3), "all": (0, 3)}
    assert verdicts(loop, "default") == {"tbt": (1, 0), "e2e": (0, 1), "all": (0, 1)}
    assert verdicts(loop, "batch") == {}
    assert sample(loop, "fluidity_ratio_sum", qos="interactive") == 3
    assert sample(loop, "fluidity_ratio_sum", qos="slow") < 1.5
    assert sample(loop, "deadline_slack_seconds_count", qos="slow") == 3
    waited = {qos: found(loop, "waiting_seconds_count", qos=qos) for qos in ("slow", "batch")}
    assert waited == {"slow": 3, "batch": 1}


@pytest.mark.parametrize("most_tokens", [1, 30])
def test_a_request_that_its_client_aborts_counts_neither_as_met_nor_as_missed(
    most_tokens: int, clock: Clock
) -> None:
    loop = SchedulerLoop(SarathiScheduler, {"ttft_slo_ms": 1000.0, "tbt_slo_ms": 40})
    loop.add("aborted", 20, max_tokens=30, arrival_time=clock.now_s)
    for _ in range(most_tokens - 1):
        timed(loop, clock, 0.010)
    loop.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    timed(loop, clock, 0.010)
    assert verdicts(loop, "default") == {}


def test_those_that_step_aside_are_counted_once(clock: Clock) -> None:
    settings = {"ttft_slo_ms": 500.0, "tpot_slo_ms": 100.0}
    loop = SchedulerLoop(SarathiScheduler, settings, max_num_seqs=2)
    for i in range(2):
        loop.add(f"runs{i}", 20, max_tokens=200, arrival_time=clock.now_s)
    timed(loop, clock, 0.010)
    loop.add("waits", 20, extra_args={"qos": "interactive"}, arrival_time=clock.now_s)
    loop.add("late", 20, arrival_time=clock.now_s - 1)
    loop.add("never due", 20, extra_args={"qos": "batch"}, arrival_time=clock.now_s)
    assert sample(loop, "relegated_requests_total", qos="default") == 1
    run(loop, clock)
    assert sample(loop, "relegated_requests_total", qos="default") == 1
    assert sample(loop, "relegated_requests_total", qos="batch") == 0
    assert found(loop, "relegated_requests_total", qos="interactive") == 1
    assert sample(loop, "waiting_seconds_sum", qos="interactive") > 1.9


def test_steps_that_admit_nobody_show_why(clock: Clock) -> None:
    loop = SchedulerLoop(SarathiScheduler, {"tpot_slo_ms": 100.0}, num_blocks=64)
    for i in range(2):
        loop.add(f"runs{i}", 300, max_tokens=60, arrival_time=clock.now_s)
    timed(loop, clock, 0.010)
    asked = {"qos": "interactive"}
    loop.add("waits", 600, max_tokens=2, extra_args=asked, arrival_time=clock.now_s)
    run(loop, clock)
    blocked = partial(sample, loop, "admission_blocked_steps_total")
    num_steps = blocked(qos="interactive", reason="kv_blocks")
    assert num_steps > 30
    assert sample(loop, "steps_total", limit="kv_blocks") == num_steps
    assert blocked(qos="interactive", reason="pace") == 0
    assert blocked(qos="default", reason="kv_blocks") == 0


@pytest.mark.parametrize("qos", [None, "interactive"])
def test_late_tokens_are_counted_whether_or_not_each_is_followed(
    qos: str | None, clock: Clock
) -> None:
    loop = SchedulerLoop(SarathiScheduler, {"tbt_slo_ms": 40})
    for i in range(3):
        options = {"extra_args": {"qos": qos}} if qos else {}
        loop.add(f"r{i}", 20, max_tokens=6, arrival_time=clock.now_s, **options)
    for duration_s in (0.010, 0.010, 0.050, 0.010, 0.060, 0.010):
        timed(loop, clock, duration_s)
    assert sample(loop, "late_tokens_total") == 6
    assert sample(loop, "decode_tokens_per_second") == pytest.approx(15 / 0.140, rel=0.01)
