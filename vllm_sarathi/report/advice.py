"""What was wrong, what limited the engine, and what to set."""

from collections.abc import Callable, Iterator

from vllm_sarathi.report.finding import NOTABLE_SHARE, Finding, Severity
from vllm_sarathi.report.lateness import late_gaps, overload, slow
from vllm_sarathi.report.limits import preemptions, queue
from vllm_sarathi.report.summary import Summary
from vllm_sarathi.report.words import duration, plural, share

_WIDE_RATIO = 1.3
_FAR_RATIO = 1.15
"""Measured over predicted time of a step, at the 99th percentile and in the median, from which
step times count as hard to predict."""
_MANY_STEPS = 200


def findings(summary: Summary) -> list[Finding]:
    """All findings, those that matter most first."""
    found = [finding for part in _PARTS for finding in part(summary)]
    if all(finding.severity is Severity.NOTE for finding in found):
        found.append(_all_well(summary))
    return sorted(found, key=lambda finding: finding.severity)


def _all_well(summary: Summary) -> Finding:
    totals = (*summary.gaps.values(), *summary.first_tokens.values())
    if any(each.objective_s for each in totals):
        title = "Nearly all tokens came within their objectives."
    else:
        title = "No objective for single gaps or first tokens is set, so none was missed."
    num, num_late = sum(each.num for each in totals), sum(each.num_late for each in totals)
    return Finding(Severity.GOOD, title, f"{num_late:,} of {plural(num, 'token')} came late.")


def _faults(summary: Summary) -> Iterator[Finding]:
    if summary.faults:
        where = ", ".join(f"{name} ({count})" for name, count in summary.faults.most_common())
        yield Finding(
            Severity.BAD,
            f"The scheduler had {plural(summary.faults.total(), 'fault')}: vLLM went on without "
            "it.",
            f"Where: {where}. The last: {summary.last_error}",
            "Please report it, with the traceback in the server's log.",
        )


def _model(summary: Summary) -> Iterator[Finding]:
    middle, high = summary.ratio_quantile(0.5), summary.ratio_quantile(0.99)
    if middle is None or high is None or summary.num_steps < _MANY_STEPS:
        return
    if high > _WIDE_RATIO or not 1 / _FAR_RATIO < middle < _FAR_RATIO:
        yield Finding(
            Severity.NOTE,
            "Step times were hard to predict.",
            f"A step took {middle:.2f} times the prediction in the median, {high:.2f} times at "
            "the 99th percentile.",
            "Batches are kept smaller for it. Look for other load on the GPU or the CPU.",
        )


def _core(summary: Summary) -> Iterator[Finding]:
    between_s, busy_s = summary.bins.total("between_s"), summary.bins.total("busy_s")
    overlaps = summary.begin.async_scheduling
    if busy_s and between_s > NOTABLE_SHARE * busy_s and not overlaps:
        yield Finding(
            Severity.NOTE,
            "The engine core spends much time between steps.",
            f"{share(between_s / busy_s)} of the time passed between a result and the end of the "
            "schedule that followed, on the CPU.",
            "Asynchronous scheduling hides it; give the engine core a core of its own.",
            ("--async-scheduling",),
        )


def _stages(summary: Summary) -> Iterator[Finding]:
    bins, num_stages = summary.bins, summary.num_stages
    staged, steps = bins.total("staged"), bins.total("steps")
    if num_stages < 2 or not staged:
        return
    idle, in_flight = bins.total("stage_idle") / staged, bins.total("in_flight") / steps
    if idle <= NOTABLE_SHARE:
        return
    few = in_flight < 0.9 * num_stages
    off = summary.settings.get("balance_micro_batches") is False
    yield Finding(
        Severity.LIMIT,
        f"Stages of the pipeline idled: {share(idle)} of their time, as predicted.",
        f"{in_flight:.1f} micro-batches were in flight for {num_stages} stages, on average.",
        "There were too few requests to fill the pipeline."
        if few
        else "Micro-batches differed in length" + (": let them be balanced." if off else "."),
        ("--sarathi-balance-micro-batches",) if off else (),
    )


def _rest(summary: Summary) -> Iterator[Finding]:
    if summary.end_s and summary.idle_s > 0.5 * summary.end_s:
        yield Finding(
            Severity.NOTE,
            f"The engine was idle for {share(summary.idle_s / summary.end_s)} of the time.",
            f"{duration(summary.idle_s)} of {duration(summary.end_s)}.",
        )


_PARTS: tuple[Callable[[Summary], Iterator[Finding]], ...] = (
    _faults,
    late_gaps,
    slow,
    overload,
    queue,
    preemptions,
    _model,
    _core,
    _stages,
    _rest,
)
