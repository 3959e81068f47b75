"""The page."""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vllm_sarathi.report.advice import findings
from vllm_sarathi.report.lines import StepLogFile
from vllm_sarathi.report.plots import Plots
from vllm_sarathi.report.summary import ClassTotals, Summary, summarize
from vllm_sarathi.report.timeline import timeline
from vllm_sarathi.report.words import clock, duration, plural, share

_LONGEST_ID = 40


def write_report(step_log: Path, output: Path) -> Summary:
    """Write a page about a step log.

    Raises:
        ValueError: the log cannot be read or holds no step, or the page cannot be written.
    """
    if output.exists() and output.samefile(step_log):
        raise ValueError(f"--output {str(output)!r} is the step log itself; name another file")
    summary, file = summarize(step_log)
    text = page(summary, file)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"--output {str(output)!r} cannot be written: {error.strerror}; allowed is a file in a "
            "folder that exists"
        ) from error
    return summary


def page(summary: Summary, file: StepLogFile) -> str:
    """The page as HTML. Whatever comes from the log is escaped: clients choose request ids."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "clock": clock, "share": share}
    plots, ranked = Plots(summary), summary.worst.ranked()
    return environment.get_template("page.html").render(
        name=file.path.name,
        when=_when(summary),
        notes=_notes(summary, file),
        findings=findings(summary),
        figures=_figures(summary),
        worst=ranked,
        causes=[each for each in summary.worst.late_by_cause.most_common() if each[1]],
        gaps=plots.gaps(),
        timeline=timeline(summary.worst.around, ranked[0] if ranked else None, summary.num_stages),
        charts=plots.others(),
        first_tokens=plots.first_tokens(),
        settings=_settings(summary),
        shortened=_shortened,
    )


def _when(summary: Summary) -> str:
    began = datetime.fromtimestamp(summary.first_s, UTC)
    return f"{began:%Y-%m-%d %H:%M:%S} UTC, over {clock(round(summary.end_s, 1))}"


def _notes(summary: Summary, file: StepLogFile) -> list[str]:
    """What of the file is not on the page."""
    notes = []
    if summary.num_runs > 1:
        notes.append(f"The file holds {summary.num_runs} runs; this is the last one.")
    if file.num_bad:
        told = plural(file.num_bad, "line")
        notes.append(f"{told} could not be read, the first is line {file.first_bad}.")
    if file.is_cut_off:
        notes.append("The last line is cut off and was left out.")
    return notes


def _figures(summary: Summary) -> list[tuple[str, str]]:
    """The figures at the top, with what they are."""
    bins, span_s = summary.bins, max(summary.end_s, 1e-9)
    ranked = summary.worst.ranked()
    return [
        ("steps", f"{summary.num_steps:,}"),
        ("prefill tokens/s", f"{bins.total('prefill_tokens') / span_s:,.0f}"),
        ("decode tokens/s", f"{bins.total('decode_tokens') / span_s:,.0f}"),
        ("late gaps", _late_share(summary.gaps)),
        ("late first tokens", _late_share(summary.first_tokens)),
        ("worst gap", duration(ranked[0].waits.longest_s) if ranked else "-"),
        ("engine idle", share(summary.idle_s / span_s)),
    ]


def _late_share(totals: dict[str, ClassTotals]) -> str:
    """Share of the waits in classes with an objective that were longer than it."""
    asked = [each for each in totals.values() if each.objective_s is not None]
    num = sum(each.num for each in asked)
    return share(sum(each.num_late for each in asked) / num) if num else "-"


def _settings(summary: Summary) -> list[tuple[str, str]]:
    """What the log was recorded with: settings that are not null or empty."""
    begin = summary.begin
    engine = {
        "max_num_batched_tokens": begin.max_num_batched_tokens,
        "max_num_seqs": begin.max_num_seqs,
        "pipeline stages": begin.num_stages,
    }
    classes = {
        f"class {qos}": ", ".join(f"{name[:-2]} {duration(s)}" for name, s in asked.items())
        or "no objective"
        for qos, asked in begin.classes.items()
        if qos in summary.first_tokens
    }
    found = begin.settings | engine | classes
    return [(name, str(value)) for name, value in found.items() if value not in (None, {})]


def _shortened(request_id: str) -> str:
    """A request id that fits a line."""
    if len(request_id) <= _LONGEST_ID:
        return request_id
    return request_id[: _LONGEST_ID - 1] + "…"
