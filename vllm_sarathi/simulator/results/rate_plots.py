"""Pictures of many runs: figures against the rate, and capacities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.load.workload import NO_OBJECTIVES, Floats
from vllm_sarathi.simulator.results.comparison import column, interval
from vllm_sarathi.simulator.results.notes import ByEngine
from vllm_sarathi.simulator.results.style import (
    BLUE,
    PLAIN,
    LineStyle,
    line_styles,
    one_panel,
    save,
)

LEVELS = (50, 90, 99)
# Figure, what makes milliseconds of it, name, and the objective that goes with it.
LATENCIES = (
    ("ttft_p{}_s", 1e3, "TTFT", "ttft_s"),
    ("tpot_p{}_ms", 1.0, "TPOT", "tpot_s"),
    ("tbt_p{}_ms", 1.0, "gaps between tokens", "tbt_s"),
)
Run = dict[str, Any]


def draw_rates(by_engine: ByEngine, path: Path, objectives: Objectives = NO_OBJECTIVES) -> Path:
    """Latencies, goodput and throughput against the rate; bands span the seeds.

    Args:
        by_engine: each engine's runs, of several rates and seeds.
        path: where to draw.
        objectives: drawn beside the latencies that they limit.
    """
    figure = Figure(figsize=(11, 12), layout="constrained")
    panels = figure.subplots(4, len(LEVELS), sharex=True)
    for row, (name, scale, what, kind) in zip(panels, LATENCIES, strict=False):
        limit_s = getattr(objectives, kind)
        _share_log_axis(row)
        for axes, level in zip(row, LEVELS, strict=True):
            _draw_engines(axes, by_engine, name.format(level), scale)
            if limit_s is not None:
                axes.axhline(limit_s * 1e3, color="0.4", linewidth=1, linestyle=(0, (1, 1)))
            axes.set_title(f"{what}, P{level}", fontsize="medium")
        row[0].set_ylabel(f"{what}, ms")
    _draw_counts(panels[-1], by_engine)
    for axes in panels[-1]:
        axes.set_xlabel("offered load, requests/s")
        axes.xaxis.set_major_formatter(PLAIN)
    _legend(figure, panels[0][0], by_engine, objectives != NO_OBJECTIVES)
    return save(figure, path)


def _draw_counts(row: Sequence[Axes], by_engine: ByEngine) -> None:
    """The last row: how much of the load is in time, and tokens per second."""
    share, in_time, tokens = row
    _draw_engines(share, by_engine, "goodput")
    share.set(title="goodput, share of requests", ylim=(-0.03, 1.03))
    share.yaxis.set_major_formatter(PercentFormatter(1.0))
    _draw_engines(in_time, by_engine, "request_goodput")
    in_time.set(title="goodput, requests/s", ylim=(0, None))
    in_time.yaxis.set_major_formatter(PLAIN)
    _draw_engines(tokens, by_engine, "output_tokens_per_s")
    tokens.set(title="throughput, output tokens/s", ylim=(0, None))
    tokens.yaxis.set_major_formatter(PLAIN)
    for axes in row:
        axes.title.set_fontsize("medium")
        axes.grid(True, color="0.9")
        if not axes.lines:
            axes.text(0.5, 0.5, "no objectives", ha="center", color="0.4", transform=axes.transAxes)
            axes.set_yticks([])


def _draw_engines(axes: Axes, by_engine: ByEngine, name: str, scale: float = 1.0) -> None:
    """A line for each engine that has the figure: means over seeds, from least to most."""
    for (label, runs), style in zip(by_engine.items(), line_styles(), strict=False):
        rates, values = _by_rate(runs, name)
        if np.isfinite(values).any():
            _draw_band(axes, rates, values * scale, label, style)


def _draw_band(axes: Axes, rates: Floats, values: Floats, label: str, style: LineStyle) -> None:
    """A line with gaps where a value of a rate is undefined."""
    with np.errstate(invalid="ignore"):
        mean, least, most = values.mean(axis=1), values.min(axis=1), values.max(axis=1)
    axes.fill_between(rates, least, most, color=style.color, alpha=0.2, linewidth=0)
    axes.plot(rates, mean, label=label, **style.marked_line)


def _by_rate(runs: Sequence[Run | None], name: str) -> tuple[Floats, Floats]:
    """The rates, rising, and for each the figure of every seed; NaN where it is undefined."""
    known = [run for run in runs if run is not None and "rate_rps" in run]
    rates = sorted({run["rate_rps"] for run in known})
    rows = [[_value(run, name) for run in known if run["rate_rps"] == rate] for rate in rates]
    num = max(map(len, rows), default=0)
    padded = [row + [float("nan")] * (num - len(row)) for row in rows]
    return np.array(rates), np.array(padded).reshape(len(rates), num)


def _value(run: Run, name: str) -> float:
    """A figure; the latencies of a run that was cut off lack the longest."""
    value = run.get(name) if run.get("completed", True) or "_p" not in name else None
    return float("nan") if value is None else float(value)


def _share_log_axis(row: Sequence[Axes]) -> None:
    """One logarithmic axis for the percentiles of a latency, so that they can be compared."""
    for axes in row[1:]:
        axes.sharey(row[0])
        axes.tick_params(labelleft=False)
    row[0].set_yscale("log")
    for axes in row:
        axes.grid(True, which="major", color="0.9")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(PLAIN)
        axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Axes, by_engine: ByEngine, has_objectives: bool) -> None:
    handles, labels = axes.get_legend_handles_labels()
    num_seeds = max(
        len({run["seed"] for run in runs if run is not None}) for runs in by_engine.values()
    )
    longest = max(map(len, labels), default=0)
    title = f"lines: means of {num_seeds} seeds, bands: from least to most" if num_seeds > 1 else ""
    if has_objectives:
        title = "; ".join(filter(None, (title, "dotted: objective")))
    figure.legend(
        handles, labels, loc="outside upper center", frameon=False, title=title or None,
        ncols=max(1, min(len(labels), 120 // (longest + 8))), handlelength=3.5,
    )  # fmt: skip


def draw_capacities(by_engine: ByEngine, path: Path) -> Path:
    """A bar for each engine's capacity with its 95 % confidence interval, a dot for each seed."""
    figure, axes = one_panel(8, 1.2 + 0.45 * len(by_engine))
    for place, runs in enumerate(by_engine.values()):
        _draw_capacity(
            axes, place, [rate for rate in column(runs, "capacity_rps") if rate is not None]
        )
    axes.set_yticks(range(len(by_engine)), list(by_engine))
    axes.invert_yaxis()
    axes.set(xlabel="capacity, requests/s (bars: means; lines: 95 % confidence; dots: seeds)")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12)
    axes.grid(True, axis="x", color="0.9")
    axes.set_axisbelow(True)
    return save(figure, path)


def _draw_capacity(axes: Axes, place: int, rates: list[float]) -> None:
    found = interval(rates)
    if found is None or not any(rates):
        said = "not known" if found is None else "no rate meets the goal"
        axes.text(0, place, f" {said}", va="center", color="0.3")
        return
    half = found.half_width or 0.0
    error = [[min(half, found.mean)], [half]]
    axes.barh(place, found.mean, height=0.6, color=BLUE, alpha=0.35, edgecolor=BLUE)
    if half:
        axes.errorbar(found.mean, place, xerr=error, color="black", capsize=4, linewidth=1.2)
    axes.plot(rates, [place] * len(rates), "o", color=BLUE, markersize=4)
    axes.annotate(
        f"{found.mean:.3g}", (max(found.mean + half, *rates, 0.0), place), (6, 0),
        textcoords="offset points", va="center",
    )  # fmt: skip
