"""Which tokens came late, why, and what helps."""

from collections.abc import Iterator
from typing import Any

from vllm_sarathi.report.causes import Cause
from vllm_sarathi.report.finding import FEWER_SEQS, MORE_KV, Finding, Severity
from vllm_sarathi.report.summary import ClassTotals, Summary
from vllm_sarathi.report.words import duration, plural, share

_LATE_SHARE = 0.001
"""Share of late gaps from which they are a problem: below it stands the tail that the 99% rule of
the step-time model leaves."""
_LATE_FIRST_SHARE = 0.01


def late_gaps(summary: Summary) -> Iterator[Finding]:
    """Gaps that were longer than their objective."""
    late = {qos: gaps for qos, gaps in summary.gaps.items() if gaps.late_share >= _LATE_SHARE}
    if not late:
        return
    causes = summary.worst.late_by_cause.most_common(3)
    total = max(summary.worst.late_by_cause.total(), 1)
    told = "; ".join(f"{cause.value} ({share(count / total)})" for cause, count in causes if count)
    worst = "; ".join(
        f"{qos}: {share(gaps.late_share)} of {plural(gaps.num, 'gap')}, the longest "
        f"{duration(gaps.longest_s)}, objective {duration(gaps.objective_s)}"
        for qos, gaps in late.items()
    )
    action, flags = _mend(summary, causes[0][0], *next(iter(late.items())))
    yield Finding(
        Severity.BAD,
        f"Tokens came later than the objective for gaps allows: mostly {causes[0][0].value}.",
        f"{worst}. Late tokens by cause: {told}.",
        action,
        flags,
    )


def _mend(
    summary: Summary, cause: Cause, qos: str, gaps: ClassTotals
) -> tuple[str, tuple[str, ...]]:
    """What to do about gaps of this cause."""
    preset, longest_ms = summary.settings.get("preset"), gaps.longest_s * 1e3
    if cause in (Cause.PREFILL, Cause.PAUSED, Cause.NOT_SCHEDULED, Cause.NOT_LEARNED):
        if preset == "observe":
            text = "vLLM decides under this preset. Let batches follow the objective."
            return text, ("--sarathi-preset slo", _tbt_flag(gaps.objective_s))
        if preset in ("stall-free", "decode-maximal", "offline"):
            text = "Batches follow no objective under this preset. Let them."
            return text, ("--sarathi-preset slo", _tbt_flag(gaps.objective_s))
        if cause is Cause.NOT_LEARNED:
            return "Step times are learned within the first dozens of steps: warm up first.", ()
        text = "The smallest batch with prefill does not fit: loosen the objective, or run fewer."
        return text, (_looser_flag(summary, qos, gaps), _seqs_flag(summary, gaps))
    if cause is Cause.DECODES:
        text = "Fewer decodes at a time are faster, or the objective has to be looser."
        return text, (_seqs_flag(summary, gaps), _looser_flag(summary, qos, gaps))
    if cause is Cause.PREEMPTED:
        return "Give the KV cache more room, or run fewer requests.", (*MORE_KV, FEWER_SEQS)
    if cause in (Cause.MISPREDICTED, Cause.OVERRUN):
        return (
            "Look for what else uses the GPU or the CPU then, and for compilations during "
            f"serving; an objective of {longest_ms:.0f} ms would have held."
        ), ()
    if cause in (Cause.NO_STEP, Cause.ENGINE_CORE):
        text = "Look at the CPU of the engine core: its load, swapping, the cores it may use."
        return text, ()
    return "See the finding on faults, and the traceback in the server's log.", ()


def _tbt_flag(seconds: float | None) -> str:
    return f"--sarathi-tbt-slo-ms {(seconds or 0.0) * 1e3:.0f}"


def _looser_flag(summary: Summary, qos: str, gaps: ClassTotals) -> str:
    """What allows a gap as long as the longest: with a TPOT objective the bound on stalls does."""
    if summary.tpot_s(qos) is None:
        return _tbt_flag(gaps.longest_s)
    return f"--sarathi-max-stall-ms {gaps.longest_s * 1e3:.0f}"


def _seqs_flag(summary: Summary, gaps: ClassTotals) -> str:
    """A limit under which steps would be about in time: time grows with decodes, at most."""
    most = summary.bins.most("most_running").max(initial=1.0)
    in_time = most * (gaps.objective_s or 0.0) / max(gaps.longest_s, 1e-9)
    return f"--max-num-seqs {max(int(min(in_time, most)), 1)}"


def slow(summary: Summary) -> Iterator[Finding]:
    """Classes whose gaps are too long on average."""
    slow = {
        qos: (gaps.mean_s, tpot_s)
        for qos, gaps in summary.gaps.items()
        if (tpot_s := summary.tpot_s(qos)) and gaps.mean_s > tpot_s
    }
    if slow:
        yield Finding(
            Severity.BAD,
            "Tokens came slower than the TPOT objective on average.",
            "; ".join(
                f"{qos}: {duration(mean_s)} a token, objective {duration(tpot_s)}"
                for qos, (mean_s, tpot_s) in slow.items()
            )
            + ".",
            "No more than fit should run at a time: the presets but observe see to it.",
            ("--sarathi-preset slo",) if summary.settings.get("preset") == "observe" else (),
        )


def overload(summary: Summary) -> Iterator[Finding]:
    """First tokens that came late, and requests that were shed for it."""
    late = {
        qos: first
        for qos, first in summary.first_tokens.items()
        if first.late_share >= _LATE_FIRST_SHARE
    }
    bins = summary.bins
    aside, shed = bins.total("relegated"), bins.total("shed")
    if not late and not shed:
        return
    evidence = "; ".join(
        f"{qos}: {share(first.late_share)} of {plural(first.num, 'request')}, the longest wait "
        f"{duration(first.longest_s)}, objective {duration(first.objective_s)}"
        for qos, first in late.items()
    )
    title = "First tokens came later than their objective"
    if aside or shed:
        title = "More was asked than the engine can do within the objectives for first tokens"
    action, flags = _relieve(summary.settings)
    yield Finding(
        Severity.BAD,
        f"{title}.",
        f"{evidence + '. ' if late else ''}{aside:,.0f} requests stepped aside for others, "
        f"{shed:,.0f} were shed.",
        action,
        flags,
    )


def _relieve(settings: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What to do about late first tokens."""
    preset, order = settings.get("preset", "slo"), settings.get("order")
    if order == "fcfs" or (order is None and preset not in ("slo", "offline")):
        text = "Prompts are served by arrival. Let deadlines decide."
        is_free = preset in ("slo", "stall-free")
        return text, ("--sarathi-order hybrid" if is_free else "--sarathi-preset slo",)
    if settings.get("shed") is False:
        text = "Add capacity, or refuse those early that can no longer be in time."
        return text, ("--sarathi-shed",)
    return "Add capacity.", ()
