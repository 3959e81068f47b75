import logging
import threading
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import SarathiScheduler
from vllm_sarathi.metrics import summary
from vllm_sarathi.metrics.catalogue import PREFIX

FIGURES = {
    "step_decode_tokens_count": 200, "step_decode_tokens_sum": 2400,
    "step_prefill_tokens_count": 200, "step_prefill_tokens_sum": 96_000,
    "step_budget_tokens_count": 150, "step_budget_tokens_sum": 150 * 512,
    "steps_total/objective": 142, "steps_total/tile": 58,
    "measured_step_seconds_count": 200, "measured_step_seconds_sum": 8.2,
    "predicted_step_seconds_count": 200, "predicted_step_seconds_sum": 8.0,
    "late_tokens_total": 12,
    "objectives_missed_total/ttft": 1, "objectives_attained_total/ttft": 99,
    "relegated_requests_total": 3,
}  # fmt: skip


def test_the_line_has_what_happened_between_two_times() -> None:
    before = Counter({name: 7 * value for name, value in FIGURES.items()})
    now = Counter({name: 8 * value for name, value in FIGURES.items()})
    now["tbt_objective_seconds"] = before["tbt_objective_seconds"] = 0.05  # type: ignore[assignment]
    assert summary.summary(before, now) == (
        "200 steps of 12.0 decode + 480.0 prefill tokens (budget 512, bound by objective 71%), "
        "step 41.0 ms (predicted 40.0), gap objective 50 ms: 0.5% missed, TTFT missed 1.0%, "
        "3 relegated"
    )


def test_without_traffic_there_is_no_line() -> None:
    now = Counter({name: 8 * value for name, value in FIGURES.items()})
    assert summary.summary(now, now) == ""


def test_results_of_steps_from_an_earlier_interval_alone_make_no_line() -> None:
    before = Counter(FIGURES)
    now = before + Counter({"measured_step_seconds_count": 2, "measured_step_seconds_sum": 1})
    assert summary.summary(before, now) == ""


def test_late_tokens_of_earlier_steps_beside_prefill_alone_make_a_line() -> None:
    before = Counter(FIGURES) + Counter({"tbt_objective_seconds": 1})
    now = before + Counter({"late_tokens_total": 2})
    for name in ("step_decode_tokens", "step_prefill_tokens", "measured_step_seconds"):
        now[f"{name}_count"] += 1
    now["steps_total/objective"] += 1
    assert summary.summary(before, now).endswith("gap objective 1000 ms")


def test_a_line_that_fails_is_logged_once_and_the_next_ones_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = threading.enumerate()  # schedulers of other tests may log meanwhile
    outcomes, failures, logged = iter([0, 0]), [], threading.Event()

    def fails_twice(*_: object) -> str:
        return "" if threading.current_thread() in others else f"{1 / next(outcomes, 1)}"

    monkeypatch.setattr(summary, "summary", fails_twice)
    monkeypatch.setattr(summary.logger, "exception", lambda *words: failures.append(words))
    monkeypatch.setattr(summary.logger, "info", lambda *words: logged.set())
    end = summary.log_regularly(CollectorRegistry(), PREFIX, 0.01)
    assert logged.wait(20)
    end()
    assert len(failures) == 1


def test_a_scheduler_counts_all_that_the_line_says(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"tbt_slo_ms": 1.5, "ttft_slo_ms": 2.0}
    loop = SchedulerLoop(SarathiScheduler, settings)
    registry = loop.scheduler._recorder.catalogue.registry
    before = summary.figures(registry, PREFIX)
    loop.add("first", 100, max_tokens=40)
    loop.add("second", 3000, max_tokens=4)
    loop.run()
    line = summary.summary(before, summary.figures(registry, PREFIX))
    for words in (" steps of ", "budget ", "bound by ", "predicted ", "gap objective ", "TTFT "):
        assert words in line


def test_lines_come_while_there_is_traffic_and_no_more_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = SchedulerLoop(SarathiScheduler, {})
    others = threading.enumerate()  # schedulers of other tests may log meanwhile
    logged = threading.Event()

    def note(*words: object) -> None:
        if threading.current_thread() not in others:
            logged.set()

    monkeypatch.setattr(summary.logger, "info", note)
    end = summary.log_regularly(loop.scheduler._recorder.catalogue.registry, PREFIX, 0.05)
    (thread,) = set(threading.enumerate()) - set(others)
    assert not logged.wait(0.3)
    loop.add("request", 100, max_tokens=3)
    loop.run()
    assert logged.wait(20)
    end()
    thread.join(20)
    assert not thread.is_alive()


def test_lines_are_of_vllms_logger() -> None:
    assert logging.getLogger(summary.logger.name).name.startswith("vllm.")
