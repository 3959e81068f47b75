from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from tests.support.step_log import BEGIN, gap, placed, step
from vllm_sarathi.report.causes import Cause
from vllm_sarathi.report.summary import summarize

QUICK = [step() for _ in range(3)]


def after(*steps: dict[str, Any], gap_s: float | None = None, **more: Any) -> list[dict[str, Any]]:
    """Quick steps, then some of which the last ends a gap over all of them, then a quick one."""
    gap_s = gap_s or sum(each["duration_s"] for each in steps)
    *paused, last = steps
    silent = [each | {"gaps": {}} for each in paused]
    return [*QUICK, *silent, last | {"gaps": {"default": gap(gap_s, **more)}}, step()]


LONG = step(0.4, prefill=2048)
CASES = {
    "prefill": (after(LONG), Cause.PREFILL,
        "A step of 2,048 prefill tokens and 4 decodes took 400 ms, 400 ms predicted: more than "
        "the objective of 50 ms allows."),
    "decodes": (after(step(0.06, decodes=200)), Cause.DECODES,
        "A step of 200 decodes took 60 ms, 60 ms predicted: more than the objective of 50 ms "
        "allows."),
    "mispredicted": (after(LONG | {"predicted_s": 0.045}), Cause.MISPREDICTED,
        "A step of 2,048 prefill tokens and 4 decodes took 400 ms where 45 ms were predicted."),
    "overrun": (after(step(0.052, prefill=500) | {"predicted_s": 0.048}), Cause.OVERRUN,
        "A step of 500 prefill tokens and 4 decodes took 52 ms; the 48 ms predicted would have "
        "been in time."),
    "not learned": (after(LONG | {"predicted_s": 0.0}), Cause.NOT_LEARNED,
        "A step of 2,048 prefill tokens and 4 decodes took 400 ms, before any step time was "
        "learned."),
    "paused": (after(*[step(0.03, 900, 0, num_decodes_paused=4)] * 3, step(0.02)), Cause.PAUSED,
        "Its decode paused for 3 steps of 2,700 prefill tokens together, then ran in one of 4 "
        "decodes."),
    "not scheduled": (after(step(0.03, 900), step(0.03)), Cause.NOT_SCHEDULED,
        "1 step of 900 prefill tokens together ran without it, then one of 4 decodes with it."),
    "preempted": (after(step(0.03), step(0.03), kv_usage=1, was_preempted=True), Cause.PREEMPTED,
        "The request was preempted for lack of KV blocks (50% of the cache in use) and prefilled "
        "again over 2 steps."),
    "engine core": (after(step(0.4, between_s=0.37)), Cause.ENGINE_CORE,
        "The engine core was busy for 370 ms between two steps, on the CPU and outside the "
        "model."),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_sentence_names_the_cause_of_a_gap(name: str, log: Callable[..., Path]) -> None:
    steps, cause, sentence = CASES[name]
    (worst, *_) = summarize(log(BEGIN, *placed(steps)))[0].worst.ranked()
    assert (worst.cause, worst.sentence) == (cause, sentence)


def test_a_time_in_which_no_step_ran_is_outside_the_scheduler(log: Callable[..., Path]) -> None:
    steps = placed([*QUICK, step(0.02, gaps={"default": gap(1.02)})], idle_s=1.0)
    (worst, *_) = summarize(log(BEGIN, *steps))[0].worst.ranked()
    assert worst.cause is Cause.NO_STEP
    assert worst.sentence == "For 1 s no step ran: outside the scheduler."


def test_a_fault_within_a_gap_is_its_cause(log: Callable[..., Path]) -> None:
    *before, last = placed(after(LONG)[:-1])
    fault = {"fault": "planning", "error": "ZeroDivisionError()"}
    (worst, *_) = summarize(log(BEGIN, *before, fault, last))[0].worst.ranked()
    assert worst.cause is Cause.FAULT


def test_gaps_that_overlap_are_one_incident_and_late_ones_come_first(
    log: Callable[..., Path],
) -> None:
    both = {"default": gap(0.4, objective_s=0.5), "interactive": gap(0.4)}
    steps = [*QUICK, LONG | {"gaps": both}, step(0.6, gaps={"batch": gap(0.6, objective_s=None)})]
    ranked = summarize(log(BEGIN, *placed(steps)))[0].worst.ranked()
    assert [(each.qos, each.is_late) for each in ranked[:2]] == [
        ("interactive", True),
        ("default", False),
    ]


def test_late_tokens_are_counted_by_cause(log: Callable[..., Path]) -> None:
    steps: Iterator[dict[str, Any]] = chain.from_iterable(repeat(after(LONG), 5))
    summary = summarize(log(BEGIN, *placed(steps)))[0]
    assert summary.worst.late_by_cause[Cause.PREFILL] == 20
    assert summary.gaps["default"].num_late == 20
