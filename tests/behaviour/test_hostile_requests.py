"""What one client asks harms neither the others nor the engine."""

from typing import Any

import pytest
from vllm.pooling_params import PoolingParams

from tests.support.clock import virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from tests.support.tokens import came
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.policy.answers import Answers
from vllm_sarathi.policy.deadlines import Promise

OBJECTIVES = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50}


def most_running_beside(asked: dict[str, Any] | None, settings: dict[str, Any]) -> int:
    """Of forty requests that come while one with its own wishes decodes, how many run at once."""
    with virtual_time() as clock:
        loop = SchedulerLoop(SarathiScheduler, settings)
        loop.add("first", 20, max_tokens=400, extra_args=asked)
        running = []
        for step in range(150):
            if step == 60:
                for i in range(40):
                    loop.add(f"r{i}", 50, max_tokens=30, arrival_time=clock.now_s)
            output = loop.schedule()
            clock.now_s += 0.010 + 1e-4 * output.total_num_scheduled_tokens
            loop._answer(output, loop._run(output))
            running.append(len(loop.scheduler.running))
        return max(running[60:])


@pytest.mark.parametrize("settings", [{}, OBJECTIVES])
@pytest.mark.parametrize("asked", [{"tpot_slo_ms": 1.5}, {"tbt_slo_ms": 1.5}])
def test_a_pace_that_nobody_can_keep_keeps_nobody_out(
    asked: dict[str, Any], settings: dict[str, Any]
) -> None:
    far = {**asked, "ttft_slo_ms": 86_400_000}
    assert most_running_beside(far, settings) > most_running_beside(None, settings) / 2


def test_an_answer_without_a_token_is_dropped() -> None:
    answers = Answers()
    answers.expect("r", Promise(tpot_s=0.05), 0.0, 1.0)
    came(answers, "r", 0, 0.5, is_last=True)
    assert not answers.begun


def test_one_that_was_cut_off_does_not_tell_how_long_answers_are() -> None:
    answers = Answers()
    for name, num_tokens, is_cut_off in (("short", 10, False), ("long", 300, True)):
        answers.expect(name, Promise(tpot_s=0.05), 0.0, 1.0)
        came(answers, name, num_tokens, 0.5, is_last=not is_cut_off)
        answers.forget(name)
    assert answers.mean_output == pytest.approx(10, rel=0.01)


def test_a_session_that_vllm_adds_twice_ends_no_engine() -> None:
    for num_output in range(40, 60, 3):
        loop = SchedulerLoop(AsyncSarathiScheduler, {"order": "edf"}, num_blocks=10)
        loop.add("other", 30, max_tokens=90)
        loop.add("session", 14, max_tokens=num_output, resumable=True)
        for step in range(120):
            loop.step()
            if step % 7 == 6:
                loop.add(f"more{step}", 20, max_tokens=3)


def test_a_pooling_request_is_promised_no_tokens() -> None:
    loop = SchedulerLoop(SarathiScheduler, OBJECTIVES)
    request = loop.add("pooled", 40)
    request.sampling_params, request.pooling_params = None, PoolingParams(task="embed")
    loop.schedule()
    assert not loop.scheduler.step_observer.promises.answers.begun
