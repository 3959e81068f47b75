"""Rival policies do what their papers say, over vLLM's real scheduler, without an engine."""

import time
from typing import Any

import pytest
from support.rivals.compute_share import ComputeShare
from support.rivals.delegation import Anchor, Rival, TokenDeadlines, rival
from support.rivals.fair_batching import FairBatching
from support.rivals.ppas import PPas
from support.rivals.qoserve import QoServe
from support.rivals.sliding_serve import SlidingChunk, SlidingServe
from support.rivals_cases import LOADS, ShortFirst, fingerprint, observed, stock
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import Decodes, Due, RequestView
from vllm_sarathi.policy.step import StepView
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.simulator import (
    EngineSettings,
    Fixed,
    Report,
    Synthetic,
    deployment,
    simulate,
)

OBJECTIVES = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50}
FIRST_COME = {**OBJECTIVES, "order": "fcfs"}
SETTINGS: dict[type[Rival], dict[str, Any]] = {
    PPas: FIRST_COME,
    FairBatching: FIRST_COME,
    QoServe: OBJECTIVES,
    SlidingServe: OBJECTIVES,
    ComputeShare: FIRST_COME,
}
RIVALS = list(SETTINGS)


class LinearStepTime(StepTimeModel):
    """A step takes 10 ms, 0.1 ms for each token, and 0.2 ms for each token of decodes' contexts."""

    context_s = 2e-4

    def predict(self, work: StepWork) -> float:
        return 0.01 + 1e-4 * work.num_tokens + self.context_s * work.decode_context

    def observe(self, work: StepWork, duration_s: float) -> None:
        """Nothing to learn."""


def loop_of(kind: type[Rival], monkeypatch: pytest.MonkeyPatch, **options: Any) -> SchedulerLoop:
    """A loop of three decodes, one step in flight; time stands still, step times are known."""
    learning = kind.make_policy

    def knowing(self: Rival, settings: SarathiConfig, min_chunk: int) -> Policy:
        return learning(self, settings, min_chunk, LinearStepTime())

    monkeypatch.setattr(kind, "make_policy", knowing)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    loop = SchedulerLoop(kind, SETTINGS[kind], max_model_len=65536, num_blocks=8000, **options)
    for i in range(3):
        loop.add(f"decode{i}", 20, max_tokens=64, arrival_time=now_s)
    for _ in range(5):
        loop.step()
    loop.batches.clear()
    return loop


def next_batch(loop: SchedulerLoop, *lengths: int) -> str:
    """The batch after prompts of these lengths came."""
    for i, num_prompt in enumerate(lengths):
        loop.add(f"prompt{i}", num_prompt, arrival_time=time.time())
    loop.batches.clear()
    loop.schedule()
    return loop.batches[0]


@pytest.mark.parametrize("kind", RIVALS)
def test_a_rival_loses_no_request_and_starves_none(kind: type[Rival]) -> None:
    outputs = {}
    for scheduler in (AsyncScheduler, kind):
        settings = SETTINGS.get(scheduler, {})
        loop = SchedulerLoop(scheduler, settings, num_blocks=300, max_num_batched_tokens=512)
        for i in range(24):
            loop.add(f"r{i}", 40 + 157 * i % 1900, max_tokens=5 + i % 9, arrival_time=time.time())
            loop.step()
        loop.run()
        outputs[scheduler] = loop.outputs
    assert outputs[kind] == outputs[AsyncScheduler]


@pytest.mark.parametrize("kind", RIVALS)
def test_a_rival_serves_everybody_in_virtual_time(kind: type[Rival]) -> None:
    engine = rival(kind, "it", SETTINGS[kind])
    assert served(engine).num_finished == 60


def served(engine: EngineSettings) -> Report:
    """What an engine makes of more requests than can be in time."""
    workload = Synthetic(Fixed(3000, 60), 60).at(30.0, 0)
    return simulate(engine, deployment("a100-llama-3-8b"), workload)


def test_p_pas_shrinks_the_budget_while_two_prefills_compete_with_decodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert next_batch(loop_of(PPas, monkeypatch), 5000) == "D3 P2045"
    monkeypatch.undo()
    assert next_batch(loop_of(PPas, monkeypatch), 5000, 5000) == "D3 P509"


def test_fair_batching_lets_decodes_that_are_ahead_wait_for_prefill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = loop_of(FairBatching, monkeypatch)
    falls_behind(loop, "decode0", 0.2)
    assert next_batch(loop, 60_000) == "D2 P1535"


def test_fair_batching_takes_those_along_that_still_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of(FairBatching, monkeypatch)
    falls_behind(loop, "decode0", 0.2)
    assert next_batch(loop, 100) == "D3 P100"


@pytest.mark.parametrize(("slack_s", "batch"), [(1.0, "D3 P2045"), (0.2, "D3 P1021")])
def test_qoserves_chunks_follow_the_least_slack(
    monkeypatch: pytest.MonkeyPatch, slack_s: float, batch: str
) -> None:
    loop = loop_of(QoServe, monkeypatch)
    falls_behind(loop, "decode0", slack_s)
    assert next_batch(loop, 60_000) == batch


def falls_behind(loop: SchedulerLoop, name: str, slack_s: float) -> None:
    """Let a decode have so much slack that its TTFT objective was so much shorter."""
    promises = loop.scheduler._promises
    request, answer = loop.scheduler.requests[name], promises.answers.begun[name]
    num_due = (slack_s - OBJECTIVES["ttft_slo_ms"] / 1e3) / (OBJECTIVES["tpot_slo_ms"] / 1e3)
    answer.num_tokens = round(num_due) - request.num_output_placeholders


def test_qoserve_serves_short_prompts_first_and_those_in_time_before_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = loop_of(QoServe, monkeypatch)
    now_s = time.time()
    for name, num_prompt, age_s in (("late", 100, 3), ("long", 5000, 0), ("short", 100, 0)):
        loop.add(name, num_prompt, arrival_time=now_s - age_s)
    assert [r.request_id for r in loop.scheduler.waiting] == ["short", "long", "late"]


def test_sliding_serve_leaves_the_next_step_room() -> None:
    chunk = SlidingChunk(CheapAbove1000())
    view = StepView(4096, 3, 3, 60, prefills=(RequestView("long", 60_000),), due=Due(0.11, 0.1))
    assert chunk(view).num_tokens < 1000


class CheapAbove1000(StepTimeModel):
    """Only large batches are worth their time, and 0.11 s do not hold one."""

    def predict(self, work: StepWork) -> float:
        return 1e-4 * work.num_tokens if work.num_tokens < 1100 else 0.12


def test_sliding_serve_leaves_out_whom_the_others_would_wait_for_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = loop_of(SlidingServe, monkeypatch)
    order = loop.scheduler._promises.order
    order.token_s = 1e-4
    for name, num_prompt in (("long", 18_000), ("chat0", 2000), ("chat1", 2000)):
        loop.add(name, num_prompt, arrival_time=time.time())
    order.expire(time.time())
    assert [place.request.request_id for place in order] == ["chat0", "chat1", "long"]


def test_turns_of_prefill_take_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinearStepTime, "context_s", 0.0)
    loop = loop_of(ComputeShare, monkeypatch)
    next_batch(loop, 40_000)
    for _ in range(60):
        loop.step()
    prefill_s = sum(0.01 + 1e-4 * 2048 for batch in loop.batches if "P" in batch)
    decode_s = sum(0.01 + 3e-4 for batch in loop.batches if batch == "D3")
    assert prefill_s / (prefill_s + decode_s) == pytest.approx(0.4, abs=0.1)
    assert "P2048" in loop.batches


@pytest.mark.parametrize(
    ("anchor", "from_s"), [(Anchor.ARRIVAL, 2.0), (Anchor.LATER, 2.0), (Anchor.FIRST_TOKEN, 0.0)]
)
def test_slack_counts_from_where_a_paper_counts(
    monkeypatch: pytest.MonkeyPatch, anchor: Anchor, from_s: float
) -> None:
    loop = loop_of(QoServe, monkeypatch)
    (request, *_) = loop.scheduler.running
    answer = loop.scheduler._promises.answers.begun[request.request_id]
    num_tokens = answer.num_tokens + request.num_output_placeholders
    slacks_s = TokenDeadlines(loop.scheduler, anchor).slacks_s(Decodes([request]), time.time())
    assert list(slacks_s) == [pytest.approx(from_s + 0.05 * num_tokens)]


def test_what_our_scheduler_observes_is_stock_batch_for_batch() -> None:
    assert fingerprint(served(observed(LOADS[0]))) == fingerprint(served(stock(LOADS[0])))


def test_short_prompts_come_first_where_stock_has_priorities() -> None:
    workload = ShortFirst(Synthetic(Fixed(2048, 5), 3)).at(1.0, 0)
    longer = ShortFirst(Synthetic(Fixed(2049, 5), 3)).at(1.0, 0)
    assert [w.classes[w.class_of[0]].priority for w in (workload, longer)] == [1, 2]
