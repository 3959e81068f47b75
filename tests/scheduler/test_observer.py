import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from vllm.v1.request import RequestStatus

from tests.support.engineless import Engine
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.step import StepPlan, StepView
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


def run(engine: Engine, clock: Clock) -> None:
    """10 ms a step and 0.1 ms a token."""
    while engine.scheduler.has_unfinished_requests():
        output = engine.schedule()
        clock.now_s += 0.010 + 0.0001 * output.total_num_scheduled_tokens
        engine._answer(output, engine._run(output))


def found(engine: Engine, name: str, **labels: str) -> float | None:
    registry: CollectorRegistry = engine.scheduler._recorder.registry
    model = engine.scheduler.vllm_config.model_config.served_model_name
    labels = {"engine": "0", "model_name": model, **labels}
    return registry.get_sample_value(f"vllm_sarathi:{name}", labels)


def sample(engine: Engine, name: str, **labels: str) -> float:
    value = found(engine, name, **labels)
    assert value is not None, name
    return value


def test_a_pipeline_shows_how_even_it_is(clock: Clock) -> None:
    engine = Engine(SarathiScheduler, in_flight=2, pipeline_parallel_size=2)
    for i in range(8):
        engine.add(f"r{i}", 20, max_tokens=60, arrival_time=clock.now_s)
    while engine.scheduler.has_unfinished_requests():
        clock.now_s += 0.010
        engine.step()
    assert sample(engine, "micro_batch_imbalance_count") > 50
    assert sample(engine, "micro_batch_imbalance_sum") < 1.1 * sample(
        engine, "micro_batch_imbalance_count"
    )
    assert sample(engine, "stage_idle_share_sum") < 0.1 * sample(engine, "stage_idle_share_count")


def mixed(settings: dict[str, object], clock: Clock) -> Engine:
    engine = Engine(SarathiScheduler, settings)
    for i in range(4):
        engine.add(f"decode{i}", 20, max_tokens=200, arrival_time=clock.now_s)
    for i in range(6):
        engine.add(f"long{i}", 900, max_tokens=20, arrival_time=clock.now_s)
    run(engine, clock)
    return engine


def test_the_model_learns_the_machine_and_the_objective_holds(clock: Clock) -> None:
    engine = mixed({"tbt_slo_ms": 40}, clock)
    assert sample(engine, "tbt_objective_misses_total") == 0
    assert sample(engine, "measured_step_seconds_count") == len(engine.batches)
    predicted = sample(engine, "predicted_step_seconds_sum")
    assert predicted == pytest.approx(sample(engine, "measured_step_seconds_sum"), rel=0.1)
    assert any("P2" in batch for batch in engine.batches if batch.startswith("D"))


def timed(engine: Engine, clock: Clock, duration_s: float) -> None:
    """A step of a made-up duration."""
    output = engine.schedule()
    clock.now_s += duration_s
    engine._answer(output, engine._run(output))


def test_a_gap_spans_the_steps_that_decodes_sat_out(clock: Clock) -> None:
    engine = Engine(SarathiScheduler, {"tbt_slo_ms": 40})
    engine.add("decode", 20, max_tokens=200, arrival_time=clock.now_s)
    timed(engine, clock, 0.010)
    policy, observer = engine.scheduler.batch_policy, engine.scheduler.step_observer
    plan: Callable[[StepView], StepPlan] = policy.builder.plan
    engine.add("long", 900, max_tokens=20, arrival_time=clock.now_s)
    timed(engine, clock, 0.015)
    waits = iter((True, True, False, False))

    class Waiting:
        def plan(self, view: StepView) -> StepPlan:
            seen = view.without_decodes() if (wait := next(waits)) else view
            return replace(plan(seen), pauses_decodes=wait)

    engine.scheduler.batch_policy = replace(policy, builder=Waiting())
    for paused_s in (0.0, 0.015, 0.030, 0.0):
        assert observer.outlook.paused_s == pytest.approx(paused_s)
        timed(engine, clock, 0.015)
    assert sample(engine, "tbt_objective_misses_total") == 1
    assert sample(engine, "decode_pauses_total") == 2


def test_a_clock_that_stands_still_does_not_keep_decodes_waiting(clock: Clock) -> None:
    engine = mixed({"tbt_slo_ms": 40}, clock)
    engine.scheduler.batch_policy = replace(engine.scheduler.batch_policy, pauses_decodes=True)
    for i in range(4):
        engine.add(f"late{i}", 20, max_tokens=20, arrival_time=clock.now_s)
        engine.add(f"more{i}", 2000, max_tokens=2, arrival_time=clock.now_s)
    for _ in range(200):
        timed(engine, clock, 0.0)
    assert all(map(len, engine.outputs.values()))


def test_misses_of_an_impossible_objective_are_counted_and_everyone_is_served(
    clock: Clock,
) -> None:
    engine = mixed({"tbt_slo_ms": 0.1, "ttft_slo_ms": 15.0}, clock)
    assert sample(engine, "tbt_objective_misses_total") > 500
    assert sample(engine, "ttft_objective_misses_total") >= 6
    assert all(engine.outputs.values())


def test_auto_shows_the_objective_it_derived(clock: Clock) -> None:
    engine = mixed({}, clock)
    assert sample(engine, "tbt_objective_seconds") == pytest.approx(5 * 0.0104, rel=0.1)


@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
def test_a_trace_holds_a_line_for_each_step(ours: type[SarathiMixin], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    engine = Engine(ours, {"step_log": str(trace)})
    engine.add("a", 100, max_tokens=5)
    engine.run()
    steps = [json.loads(line) for line in trace.read_text().splitlines()]
    assert [step["num_prefill_tokens"] for step in steps] == [100, 0, 0, 0, 0]
    assert [step["work"]["num_tokens"] for step in steps] == [100, 1, 1, 1, 1]
    assert all(step["duration_s"] > 0 for step in steps)


def test_a_disk_that_is_full_ends_the_trace_and_not_the_engine() -> None:
    engine = Engine(SarathiScheduler, {"step_log": "/dev/full"})
    engine.add("a", 100, max_tokens=5)
    engine.run()
    assert len(engine.outputs["a"]) == 5


def test_a_trace_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "trace.jsonl")
    with pytest.raises(ValueError, match=r"step_log=.*cannot be written"):
        Engine(SarathiScheduler, {"step_log": path})


def test_requests_that_end_or_are_aborted_are_forgotten() -> None:
    engine = Engine(SarathiScheduler, {"tbt_slo_ms": 50, "max_stall_ms": 200})
    engine.add("ends", 20, max_tokens=3)
    engine.add("aborted", 20, max_tokens=30)
    for _ in range(5):
        engine.step()
    begun = engine.scheduler.step_observer.promises.answers.begun
    assert set(begun) == {"aborted"}
    engine.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    engine.add("next", 20, max_tokens=1)
    engine.run()
    assert begun == {}


def verdicts(engine: Engine, qos: str) -> dict[str, tuple[float, float]]:
    """Requests that met and missed each kind of objective, and all of theirs."""
    counts = {
        kind: tuple(
            found(engine, f"objectives_{verdict}_total", qos=qos, kind=kind) or 0
            for verdict in ("attained", "missed")
        )
        for kind in ("ttft", "tpot", "tbt", "e2e")
    }
    counts["all"] = tuple(
        found(engine, f"requests_{verdict}_total", qos=qos) or 0
        for verdict in ("attained", "missed")
    )
    return {kind: (met, missed) for kind, (met, missed) in counts.items() if met or missed}


def test_each_class_shows_which_objectives_its_requests_met(clock: Clock) -> None:
    slow = {"ttft_slo_ms": 30.0, "tpot_slo_ms": 2.0, "tbt_slo_ms": None}
    engine = Engine(SarathiScheduler, {"tbt_slo_ms": 40, "qos_classes": {"slow": slow}})
    for i in range(3):
        engine.add(f"quick{i}", 20, extra_args={"qos": "interactive"}, arrival_time=clock.now_s)
        engine.add(f"slow{i}", 20, extra_args={"qos": "slow"}, arrival_time=clock.now_s)
    engine.add("own", 20, extra_args={"e2e_slo_ms": 20}, arrival_time=clock.now_s)
    engine.add("bulk", 20, extra_args={"qos": "batch"}, arrival_time=clock.now_s)
    run(engine, clock)
    assert verdicts(engine, "interactive") == {
        "ttft": (3, 0), "tpot": (3, 0), "tbt": (3, 0), "all": (3, 0)
    }  # fmt: skip
    assert verdicts(engine, "slow") == {"ttft": (3, 0), "tpot": (0, 3), "all": (0, 3)}
    assert verdicts(engine, "default") == {"tbt": (1, 0), "e2e": (0, 1), "all": (0, 1)}
    assert verdicts(engine, "batch") == {}
    assert sample(engine, "fluidity_sum", qos="interactive") == 3
    assert sample(engine, "fluidity_sum", qos="slow") < 1.5
    assert sample(engine, "deadline_slack_seconds_count", qos="slow") == 3
    waited = {qos: found(engine, "waiting_seconds_count", qos=qos) for qos in ("slow", "batch")}
    assert waited == {"slow": 3, "batch": 1}


@pytest.mark.parametrize("most_tokens", [1, 30])
def test_a_request_that_its_client_aborts_counts_neither_as_met_nor_as_missed(
    most_tokens: int, clock: Clock
) -> None:
    engine = Engine(SarathiScheduler, {"ttft_slo_ms": 1000.0, "tbt_slo_ms": 40})
    engine.add("aborted", 20, max_tokens=30, arrival_time=clock.now_s)
    for _ in range(most_tokens - 1):
        timed(engine, clock, 0.010)
    engine.scheduler.finish_requests("aborted", RequestStatus.FINISHED_ABORTED)
    timed(engine, clock, 0.010)
    assert verdicts(engine, "default") == {}


def test_those_that_step_aside_are_counted_once(clock: Clock) -> None:
    settings = {"ttft_slo_ms": 500.0, "tpot_slo_ms": 100.0}
    engine = Engine(SarathiScheduler, settings, max_num_seqs=2)
    for i in range(2):
        engine.add(f"runs{i}", 20, max_tokens=200, arrival_time=clock.now_s)
    timed(engine, clock, 0.010)
    engine.add("waits", 20, extra_args={"qos": "interactive"}, arrival_time=clock.now_s)
    engine.add("late", 20, arrival_time=clock.now_s - 1)
    engine.add("never due", 20, extra_args={"qos": "batch"}, arrival_time=clock.now_s)
    assert sample(engine, "relegated_requests_total", qos="default") == 1
    run(engine, clock)
    assert sample(engine, "relegated_requests_total", qos="default") == 1
    assert found(engine, "relegated_requests_total", qos="batch") is None
    assert found(engine, "relegated_requests_total", qos="interactive") == 1
    assert sample(engine, "waiting_seconds_sum", qos="interactive") > 1.9


def test_steps_that_admit_nobody_show_why(clock: Clock) -> None:
    engine = Engine(SarathiScheduler, {"tpot_slo_ms": 100.0}, num_blocks=64)
    for i in range(2):
        engine.add(f"runs{i}", 300, max_tokens=60, arrival_time=clock.now_s)
    timed(engine, clock, 0.010)
    engine.add("waits", 600, max_tokens=2, arrival_time=clock.now_s)
    run(engine, clock)
    num_steps = sample(engine, "admission_held_back_steps_total", reason="kv_blocks")
    assert num_steps > 30
    assert sample(engine, "step_limit_total", limit="kv_blocks") == num_steps
    assert found(engine, "admission_held_back_steps_total", reason="promises") is None


@pytest.mark.parametrize("qos", [None, "interactive"])
def test_late_tokens_are_counted_whether_or_not_each_is_followed(
    qos: str | None, clock: Clock
) -> None:
    engine = Engine(SarathiScheduler, {"tbt_slo_ms": 40})
    for i in range(3):
        options = {"extra_args": {"qos": qos}} if qos else {}
        engine.add(f"r{i}", 20, max_tokens=6, arrival_time=clock.now_s, **options)
    for duration_s in (0.010, 0.010, 0.050, 0.010, 0.060, 0.010):
        timed(engine, clock, duration_s)
    assert sample(engine, "tbt_objective_misses_total") == 6
    assert sample(engine, "decode_tokens_per_second") == pytest.approx(15 / 0.140, rel=0.01)
