import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.step_log import BEGIN, gap, placed, step
from vllm_sarathi.report.advice import findings
from vllm_sarathi.report.finding import Severity
from vllm_sarathi.report.page import write_report
from vllm_sarathi.report.summary import Summary, summarize
from vllm_sarathi.report.timeline import on_stages, timeline


def begin(**settings: Any) -> dict[str, Any]:
    """A first line with other settings."""
    changed: dict[str, Any] = json.loads(json.dumps(BEGIN))
    changed["begin"]["settings"] |= settings
    return changed


def summary_of(log: Callable[..., Path], first: dict[str, Any], *steps: dict[str, Any]) -> Summary:
    return summarize(log(first, *placed(steps)))[0]


LATE = step(0.4, prefill=2048)
WAITING = {"num_waiting": 9, "num_running": 256}
ADVICE = {
    "stalls under observe": (
        begin(preset="observe"), [step(), LATE] * 20, Severity.BAD,
        "prefill in the same batch", ("--sarathi-preset slo", "--sarathi-tbt-slo-ms 50")),
    "too many decodes": (
        BEGIN, [step(0.1, decodes=200)] * 20, Severity.BAD,
        "the decodes alone", ("--max-num-seqs 100", "--sarathi-tbt-slo-ms 100")),
    "late first tokens": (
        BEGIN, [step(first_tokens={"default": gap(9.0, objective_s=2.0)})] * 20, Severity.BAD,
        "First tokens came later", ("--sarathi-shed",)),
    "late first tokens by arrival": (
        begin(preset="observe"), [step(first_tokens={"default": gap(9.0, objective_s=2.0)})] * 20,
        Severity.BAD, "First tokens came later", ("--sarathi-preset slo",)),
    "late first tokens by arrival, with a fixed budget": (
        begin(preset="stall-free", order=None),
        [step(first_tokens={"default": gap(9.0, objective_s=2.0)})] * 20,
        Severity.BAD, "First tokens came later", ("--sarathi-order hybrid",)),
    "late first tokens by deadline, with a fixed budget": (
        begin(preset="stall-free", order="edf"),
        [step(first_tokens={"default": gap(9.0, objective_s=2.0)})] * 20,
        Severity.BAD, "First tokens came later", ("--sarathi-shed",)),
    "late gaps of a class with a mean pace": (
        BEGIN, [step(0.7, prefill=16, gaps={"interactive": gap(0.7, objective_s=0.5)})] * 20,
        Severity.BAD, "prefill in the same batch",
        ("--sarathi-max-stall-ms 700", "--max-num-seqs 2")),
    "shed": (
        begin(shed=True), [step(shed={"default": 2})] * 20, Severity.BAD,
        "More was asked", ()),
    "slow on average": (
        BEGIN, [step(0.06, gaps={"interactive": gap(0.06, objective_s=0.5)})] * 20, Severity.BAD,
        "slower than the TPOT objective", ()),
    "max_num_seqs": (
        BEGIN, [step(**WAITING)] * 20, Severity.LIMIT,
        "max_num_seqs was reached", ("--max-num-seqs 512",)),
    "kv blocks": (
        BEGIN, [step(limit="kv_blocks", **WAITING)] * 20, Severity.LIMIT,
        "KV blocks limited admission",
        ("--gpu-memory-utilization (higher)", "--kv-cache-dtype fp8")),
    "maximum": (
        BEGIN, [step(limit="maximum", **WAITING)] * 20, Severity.LIMIT,
        "max_num_batched_tokens limited", ("--max-num-batched-tokens 4096",)),
    "fixed budget": (
        begin(preset="stall-free"), [step(limit="token_budget", **WAITING)] * 20, Severity.LIMIT,
        "fixed token budget", ("--sarathi-preset slo",)),
    "preemptions": (
        BEGIN, [step(num_preempted=1)] * 20, Severity.LIMIT,
        "20 requests had to be preempted",
        ("--gpu-memory-utilization (higher)", "--kv-cache-dtype fp8", "--max-num-seqs (lower)")),
    "unpredictable": (
        BEGIN, [step(predicted_s=0.01)] * 300, Severity.NOTE, "hard to predict", ()),
    "engine core": (
        BEGIN, [step(between_s=0.005)] * 20, Severity.NOTE, "between steps",
        ("--async-scheduling",)),
    "nothing": (BEGIN, [step()] * 20, Severity.GOOD, "Nearly all tokens", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_advice_says_what_was_wrong_and_what_to_set(name: str, log: Callable[..., Path]) -> None:
    first, steps, severity, title, flags = ADVICE[name]
    found = findings(summary_of(log, first, *steps))
    (said,) = (finding for finding in found if title in finding.title)
    assert (said.severity, said.flags) == (severity, flags)


def test_what_overlaps_with_the_model_is_no_loss(log: Callable[..., Path]) -> None:
    first = begin()
    first["begin"]["async_scheduling"] = True
    found = findings(summary_of(log, first, *[step(between_s=0.005)] * 20))
    assert not any("between steps" in finding.title for finding in found)


def test_where_something_is_wrong_nothing_is_called_good(log: Callable[..., Path]) -> None:
    found = findings(summary_of(log, BEGIN, *[step(), LATE] * 20))
    assert [finding.severity for finding in found] == [Severity.BAD]


def test_a_pipeline_that_idles_says_why(log: Callable[..., Path]) -> None:
    first = begin()
    first["begin"]["num_stages"] = 4
    found = findings(summary_of(log, first, *[step(stage_idle_share=0.4)] * 20))
    (idle,) = (finding for finding in found if "Stages" in finding.title)
    assert "40%" in idle.title
    assert "too few requests" in idle.action


def test_stages_before_the_last_are_never_busy_twice(log: Callable[..., Path]) -> None:
    steps = [step(0.02 + 0.01 * (i % 3), predicted_s=0.015) for i in range(30)]
    spans = on_stages(list(summary_of(log, BEGIN, *steps).worst.recent), 3)
    for stage in range(3):
        on_one = [each[stage] for each in spans]
        assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(on_one))
    assert all(each[0][1] <= each[1][0] + 1e-9 for each in spans)


def test_without_a_gap_there_is_no_timeline(log: Callable[..., Path]) -> None:
    summary = summary_of(log, BEGIN, step(prefill=100, decodes=0))
    assert timeline(summary.worst.around, None, 1) is None


@pytest.mark.parametrize(("preset", "is_said"), [("slo", True), ("observe", False)])
def test_what_bound_a_batch_is_said_only_where_it_is_known(
    preset: str, is_said: bool, log: Callable[..., Path]
) -> None:
    found = findings(summary_of(log, begin(preset=preset), *[step(num_waiting=9)] * 20))
    assert any("batches had room" in finding.title for finding in found) == is_said


def test_without_an_objective_no_share_is_late(log: Callable[..., Path]) -> None:
    text = written(log(BEGIN, *placed([step(gaps={"default": gap(1.0, objective_s=None)})] * 9)))
    assert "<dt>late gaps</dt><dd>-</dd>" in text
    assert "<dt>late first tokens</dt><dd>-</dd>" in text


def written(path: Path) -> str:
    output = path.with_suffix(".html")
    write_report(path, output)
    return output.read_text(encoding="utf-8")


def test_a_log_that_lost_its_beginning_makes_a_page(log: Callable[..., Path]) -> None:
    assert "Batch composition" in written(log(*placed([step()] * 50)))


@pytest.mark.parametrize("steps", [[step(prefill=5, decodes=0)], [step()], [step(duration_s=0.0)]])
def test_one_step_is_enough_for_a_page(steps: list[Any], log: Callable[..., Path]) -> None:
    assert "Batch composition" in written(log(BEGIN, *placed(steps)))


def test_steps_of_unknown_duration_are_on_the_page(log: Callable[..., Path]) -> None:
    lines = [line | {"duration_s": None} for line in placed([step()] * 20)]
    assert "Batch composition" in written(log(BEGIN, *lines))


def test_the_page_names_lines_that_could_not_be_read(log: Callable[..., Path]) -> None:
    text = written(log(BEGIN, *placed([step()] * 3), "garbage\n", '{"work"'))
    assert "1 line could not be read, the first is line 5." in text
    assert "The last line is cut off" in text


def test_the_log_itself_is_not_overwritten(log: Callable[..., Path]) -> None:
    path = log(BEGIN, *placed([step()]))
    with pytest.raises(ValueError, match="is the step log itself"):
        write_report(path, path)


def test_a_page_that_cannot_be_written_is_refused_by_name(
    log: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"--output .*missing.* cannot be written"):
        write_report(log(BEGIN, *placed([step()])), tmp_path / "missing" / "page.html")
