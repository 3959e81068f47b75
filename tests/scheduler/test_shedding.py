"""Requests that can no longer be in time end in vLLM's real schedulers, each told once."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from vllm.pooling_params import PoolingParams
from vllm.v1.engine import EngineCoreOutput, FinishReason
from vllm.v1.metrics.stats import IterationStats, LoRARequestStates, RequestStateStats
from vllm.v1.request import RequestStatus

from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.scheduler.shedding import may_be_shed
from vllm_sarathi.shed_notice import notice

OURS = [SarathiScheduler, AsyncSarathiScheduler]
TTFT = {"ttft_slo_ms": 500}


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as made:
        yield made


class Shedder(SchedulerLoop):
    """A loop that sheds, with a request that decodes; keeps what the core says at the end."""

    def __init__(self, clock: Clock, ours: type = SarathiScheduler, **options: Any) -> None:
        settings = {"shed": True, **options.pop("settings", {})}
        super().__init__(ours, settings, **{"max_num_seqs": 1, **options})
        self.clock = clock
        self.ends: list[EngineCoreOutput] = []
        self.ask("runs", None, max_tokens=400)
        self.steps(3)

    def ask(self, name: str, asked: Any = TTFT, num_prompt: int = 20, **options: Any) -> Any:
        arrival_s = options.pop("arrival_time", self.clock.now_s)
        return self.add(name, num_prompt, extra_args=asked, arrival_time=arrival_s, **options)

    def steps(self, num: int = 1, step_s: float = 0.01) -> None:
        for _ in range(num):
            self.clock.now_s += step_s
            self.step()

    def _answer(self, output: Any, answer: Any) -> None:
        for group in self.scheduler.update_from_output(output, answer).values():
            for item in group.outputs:
                self.outputs[item.request_id] += item.new_token_ids
                self.ends += [item] * item.finished

    @property
    def ended(self) -> str:
        """Those that ended, as ``name:reason``."""
        return " ".join(f"{end.request_id}:{end.finish_reason}" for end in self.ends)

    def count(self, name: str, qos: str = "default") -> float:
        """A metric of requests of a class."""
        registry: CollectorRegistry = self.scheduler._recorder.catalogue.registry
        model = self.scheduler.vllm_config.model_config.served_model_name
        labels = {"engine": "0", "model_name": model, "qos": qos}
        return registry.get_sample_value(f"vllm_sarathi:{name}_requests_total", labels) or 0.0


@pytest.mark.parametrize("ours", OURS)
def test_one_that_waits_until_it_is_late_is_shed_and_told_once(ours: type, clock: Clock) -> None:
    loop = Shedder(clock, ours)
    loop.ask("late")
    loop.steps(45)
    assert loop.ended == ""
    loop.steps(15)
    assert loop.ended == "late:error"
    assert loop.ends[0].stop_reason == notice(1)
    assert loop.outputs["late"] == []
    assert loop.scheduler.get_request_counts() == (1, 0)
    assert set(loop.scheduler.requests) == {"runs"}
    assert (loop.count("shed"), loop.count("relegated")) == (1, 0)


@pytest.mark.parametrize("ours", OURS)
def test_one_that_is_late_as_it_comes_is_shed_with_the_next_output(
    ours: type, clock: Clock
) -> None:
    loop = Shedder(clock, ours)
    loop.ask("late", {"qos": "interactive"}, arrival_time=clock.now_s - 3)
    loop.steps(2)
    assert loop.ended == "late:error"
    assert loop.count("shed", "interactive") == 1


@pytest.mark.parametrize("ours", OURS)
def test_every_request_ends_once_and_no_block_is_lost(ours: type, clock: Clock) -> None:
    loop = Shedder(clock, ours, max_num_seqs=4)
    for i in range(120):
        asked = {"qos": "interactive" if i % 3 else "batch"}
        loop.ask(f"r{i}", asked, 100 + 7 * i, max_tokens=20)
        loop.steps(1, 0.05)
    while loop.scheduler.has_unfinished_requests() or loop.queue:
        loop.steps(1, 0.05)
    assert sorted(end.request_id for end in loop.ends) == sorted(loop.outputs)
    shed = {end.request_id for end in loop.ends if end.finish_reason is FinishReason.ERROR}
    assert shed
    assert all(bool(tokens) is (name not in shed) for name, tokens in loop.outputs.items())
    assert loop.count("shed", "interactive") == len(shed)
    assert loop.scheduler.kv_cache_manager.usage == 0
    assert not loop.scheduler.requests


def test_a_pace_that_was_taken_for_too_slow_corrects_itself_while_others_decode(
    clock: Clock,
) -> None:
    loop = Shedder(clock, max_num_seqs=4)
    loop.scheduler._promises.order.token_s = 1.0
    for i in range(80):
        loop.ask(f"r{i}", num_prompt=100, max_tokens=2)
        loop.steps(4)
    assert [end.request_id for end in loop.ends if end.finish_reason is FinishReason.ERROR] == []


@pytest.mark.parametrize("asked", [None, {"qos": "batch"}, {"tpot_slo_ms": 40}])
def test_one_that_states_no_objective_for_a_first_or_last_token_is_never_shed(
    asked: Any, clock: Clock
) -> None:
    loop = Shedder(clock)
    loop.ask("patient", asked)
    loop.steps(60, 10.0)
    assert loop.ended == ""
    assert loop.scheduler.get_request_counts() == (1, 1)


def test_importance_saves_nobody_who_is_late(clock: Clock) -> None:
    allowed = {"client_objectives": ["ttft_slo_ms", "importance"]}
    loop = Shedder(clock, settings=allowed)
    loop.ask("important", {**TTFT, "importance": 100})
    loop.steps(60)
    assert loop.ended == "important:error"


def test_an_objective_for_all_requests_counts_as_theirs(clock: Clock) -> None:
    loop = Shedder(clock, settings={"e2e_slo_ms": 2000.0})
    loop.ask("late", None)
    loop.steps(250)
    assert loop.ended == "late:error"


def test_without_the_setting_the_same_request_steps_aside(clock: Clock) -> None:
    loop = Shedder(clock, settings={"shed": False})
    loop.ask("late")
    loop.steps(60)
    assert loop.ended == ""
    assert (loop.count("shed"), loop.count("relegated")) == (0, 1)


@pytest.mark.parametrize("ours", OURS)
def test_where_nobody_else_is_there_one_is_served_however_late(ours: type, clock: Clock) -> None:
    loop = Shedder(clock, ours)
    loop.scheduler.finish_requests("runs", RequestStatus.FINISHED_ABORTED)
    loop.steps(3)
    loop.ask("first", {"ttft_slo_ms": 2}, max_tokens=3, arrival_time=clock.now_s - 1)
    loop.ask("second", {"ttft_slo_ms": 2}, max_tokens=3, arrival_time=clock.now_s - 1)
    loop.steps(10)
    assert loop.ended == "second:error first:length"
    assert (loop.count("shed"), loop.count("relegated")) == (1, 1)


@pytest.mark.parametrize("ours", OURS)
def test_one_that_its_client_aborts_first_is_not_told_again(ours: type, clock: Clock) -> None:
    loop = Shedder(clock, ours)
    loop.ask("gone")
    loop.steps(10)
    loop.scheduler.finish_requests("gone", RequestStatus.FINISHED_ABORTED)
    loop.steps(60)
    assert loop.ended == ""
    loop.ask("late", arrival_time=clock.now_s - 3)
    loop.scheduler.finish_requests("late", RequestStatus.FINISHED_ABORTED)
    loop.steps(5)
    assert loop.ended == "late:error"  # as it came; vLLM drops what is said of aborted ones


@pytest.mark.parametrize("ours", OURS)
def test_one_that_was_preempted_goes_on(ours: type, clock: Clock) -> None:
    loop = Shedder(clock, ours, max_num_seqs=4, num_blocks=24)
    for i in range(3):
        loop.ask(f"r{i}", max_tokens=200)
    loop.steps(300, 0.02)
    assert loop.preempted
    assert "error" not in loop.ended


def test_sessions_and_pooling_requests_are_none_of_its_business(clock: Clock) -> None:
    loop = Shedder(clock)
    session = loop.ask("session", resumable=True)
    pooled, plain, seen = (loop.ask(name) for name in ("pooled", "plain", "seen"))
    pooled.sampling_params, pooled.pooling_params = None, PoolingParams(task="embed")
    seen.num_preemptions = 1
    assert [may_be_shed(r) for r in (session, pooled, plain, seen)] == [False, False, True, False]


def test_a_client_is_told_how_long_the_prefill_that_waits_takes(clock: Clock) -> None:
    loop = Shedder(clock, settings={"order": "edf"})
    loop.scheduler._promises.order.token_s = 0.01
    loop.ask("waits", {"ttft_slo_ms": 60_000}, 250)
    loop.ask("late", arrival_time=clock.now_s - 3)
    loop.steps(2)
    assert loop.ends[0].stop_reason == notice(3)


def test_a_stall_that_was_taken_for_the_pace_is_forgotten_by_the_next_step(clock: Clock) -> None:
    loop = Shedder(clock, settings={"tbt_slo_ms": None}, max_num_seqs=8)
    order = loop.scheduler._promises.order
    loop.ask("long", None, 2100)
    loop.steps(1, 20.0)
    assert order.token_s == pytest.approx(20 / 2047)
    loop.steps(1)
    assert order.token_s == pytest.approx(0.01 / 53)


def test_vllms_times_of_a_shed_request_are_not_negative(clock: Clock) -> None:
    loop = Shedder(clock)
    loop.ask("late")
    loop.steps(60)
    (end,), stats, of_request = loop.ends, IterationStats(), RequestStateStats()
    stats.update_from_output(end, clock.now_s, True, of_request, LoRARequestStates(False), None)
    stats.update_from_finished_request(end.finish_reason, "late", 20, 8, of_request)
    (finished,) = stats.finished_requests
    assert 0.4 < finished.queued_time < 0.6
    assert 0 <= finished.prefill_time < 0.2


def test_each_front_end_is_told_of_its_own_requests(clock: Clock) -> None:
    loop = Shedder(clock)
    loop.ask("late", arrival_time=clock.now_s - 3, client_index=4)
    output = loop.schedule()
    told = loop.scheduler.update_from_output(output, loop._run(output))
    assert [item.request_id for item in told[4].outputs] == ["late"]
    assert "late" not in [item.request_id for item in told[0].outputs]
