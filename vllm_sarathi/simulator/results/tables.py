"""Tables in plain text and Markdown."""

from collections.abc import Sequence
from typing import Any

from vllm_sarathi.simulator.results.comparison import Interval, column, interval, paired_ratio

# Figure and heading.
COMPARED = (
    ("output_tokens_per_s", "out tok/s"),
    ("ttft_p50_s", "TTFT p50 s"),
    ("ttft_p99_s", "TTFT p99 s"),
    ("tpot_p99_ms", "TPOT p99 ms"),
    ("tbt_p50_ms", "TBT p50 ms"),
    ("tbt_p99_ms", "TBT p99 ms"),
    ("tbt_max_ms", "TBT max ms"),
    ("stage_idle_share", "idle"),
    ("goodput", "goodput"),
    ("request_goodput", "goodput req/s"),
    ("preemptions", "preempted"),
)
REPLAYED = (
    *((f"ttft_p{level}_s", f"TTFT p{level} s") for level in (50, 90, 99)),
    *((f"tpot_p{level}_ms", f"TPOT p{level} ms") for level in (50, 90, 99)),
    *((f"tbt_p{level}_ms", f"TBT p{level} ms") for level in (50, 90, 99)),
    ("tbt_max_ms", "TBT max ms"),
    *((f"e2e_p{level}_s", f"E2E p{level} s") for level in (50, 90, 99)),
    ("output_tokens_per_s", "out tok/s"),
    ("goodput", "goodput"),
    ("request_goodput", "goodput req/s"),
    ("preemptions", "preempted"),
)
THROUGHPUT, LATENCIES = COMPARED[0], COMPARED[1:7]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table whose columns line up."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, col)) for col in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def figures_table(figures: dict[str, Any]) -> str:
    """One run's figures, a row each."""
    return table(("figure", "value"), list(figures.items()))


def by_rate(
    by_engine: dict[str, list[dict[str, Any] | None]],
) -> dict[float, dict[str, list[dict[str, Any] | None]]]:
    """Runs of several rates, apart. What an interrupt left undone is part of none."""
    known = {name: [run for run in runs if run is not None] for name, runs in by_engine.items()}
    rates = sorted({run["rate_rps"] for runs in known.values() for run in runs})
    return {
        rate: {
            name: [run if run and run["rate_rps"] == rate else None for run in runs]
            for name, runs in by_engine.items()
        }
        for rate in rates
    }


def comparison_tables(by_engine: dict[str, list[dict[str, Any] | None]]) -> str:
    """Figures, and ratios to the first of several engines."""
    text = comparison_table(by_engine)
    return text + "\n\n" + ratio_table(by_engine) if len(by_engine) > 1 else text


def comparison_table(by_engine: dict[str, list[dict[str, Any] | None]]) -> str:
    """Engines against figures: mean and 95 % confidence over seeds."""
    rows = [
        [
            _marked(name, runs),
            _finished(runs),
            *(interval(column(runs, figure)) for figure, _ in COMPARED),
        ]
        for name, runs in by_engine.items()
    ]
    return table(("engine", "finished", *(heading for _, heading in COMPARED)), rows)


def replay_table(by_engine: dict[str, list[dict[str, Any] | None]]) -> str:
    """Figures against what was recorded and what other settings would have done."""
    rows = [
        [heading, *values]
        for figure, heading in REPLAYED
        if any(values := [interval(column(runs, figure)) for runs in by_engine.values()])
    ]
    return table(("figure", *(_marked(*engine) for engine in by_engine.items())), rows)


def ratio_table(by_engine: dict[str, list[dict[str, Any] | None]]) -> str:
    """Engines against figures, as ratios to the first engine over pairs of seeds.

    Where a run is incomplete there is no ratio of latencies: those that would have been
    the longest are missing.
    """
    (baseline, base), *others = by_engine.items()
    rows = []
    for name, runs in others:
        whole = not _incomplete(runs) and not _incomplete(base)
        latencies = [_ratio(runs, base, figure) if whole else None for figure, _ in LATENCIES]
        rows.append([_marked(name, runs), _ratio(runs, base, THROUGHPUT[0]), *latencies])
    headings = [heading for _, heading in (THROUGHPUT, *LATENCIES)]
    return table((f"ratio to {_marked(baseline, base)}", *headings), rows)


def capacity_table(by_engine: dict[str, list[dict[str, Any] | None]]) -> str:
    """Capacity of each engine, as a ratio to the first, and what every condition came to there."""
    base = next(iter(by_engine.values()))
    done = [run for runs in by_engine.values() for run in runs if run and "checks" in run]
    limits = {
        check["figure"]: f"{check['figure']} ({check['allowed']} {check['limit']:g})"
        for run in done
        for check in run["checks"]
        if check["figure"] != "finished_share"  # always all, within capacity
    }
    rows = []
    for name, runs in by_engine.items():
        found = [run for run in runs if run is not None and "error" not in run]
        held = [run for run in found if run["capacity_rps"]]
        rows.append(
            [
                _marked(name, runs),
                interval(column(runs, "capacity_rps")),
                _ratio(runs, base, "capacity_rps"),
                *(interval([_checked(run, figure) for run in held]) for figure in limits),
                len(found),
            ]
        )
    return table(("engine", "capacity req/s", "ratio", *limits.values(), "seeds"), rows)


def _checked(run: dict[str, Any], figure: str) -> float | None:
    """What a condition of the goal came to."""
    value: float | None = next(
        check["value"] for check in run["checks"] if check["figure"] == figure
    )
    return value


def _marked(name: str, runs: list[dict[str, Any] | None]) -> str:
    """An engine's name, with what keeps its figures from being whole."""
    if any("error" in run for run in runs if run is not None):
        return f"{name} (failed)"
    return f"{name} (cut off)" if _incomplete(runs) else name


def _incomplete(runs: list[dict[str, Any] | None]) -> bool:
    """Whether a run failed, or left requests unfinished at the time limit."""
    return any("error" in run or not run.get("completed", True) for run in runs if run is not None)


def _finished(runs: list[dict[str, Any] | None]) -> str:
    """Requests finished and offered, of all runs."""
    done, offered = (
        sum(int(num) for num in column(runs, figure) if num is not None)
        for figure in ("finished_requests", "offered_requests")
    )
    return f"{done}/{offered}"


def _ratio(
    runs: list[dict[str, Any] | None], base: list[dict[str, Any] | None], figure: str
) -> Interval | None:
    return paired_ratio(column(runs, figure), column(base, figure))
