"""Pictures of runs, step by step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.load.workload import NO_OBJECTIVES, Floats
from vllm_sarathi.simulator.results.recorder import StepHistory
from vllm_sarathi.simulator.results.report import Report
from vllm_sarathi.simulator.results.style import (
    BLUE,
    GREEN,
    PLAIN,
    VERMILION,
    color_legend,
    line_styles,
    one_panel,
    save,
    stacked_panels,
)

# Time is cut into so many bins: what falls into one is a mean, for it would overlap.
NUM_BINS = 250
# Steps of a pipeline that a panel shows unless told how long: each is wide enough to be seen.
NUM_STEPS_SHOWN = 80
# The rarest gaps that are drawn.
LEAST_SHARE = 1e-4
PREFILL, DECODE, BOTH, IDLE = VERMILION, GREEN, BLUE, "white"
KINDS = {"prefill and decode": BOTH, "prefill": PREFILL, "decode": DECODE, "idle": IDLE}


def draw_run(report: Report, folder: Path, objectives: Objectives = NO_OBJECTIVES) -> list[Path]:
    """Draw a run that kept its steps (``keep_steps=True``); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = draw_stages if len(report.stage_busy_s) > 1 else draw_work
    return [
        draw_composition(report, folder / "composition.png"),
        draw_gaps([report], folder / "gaps.png", objectives.tbt_s),
        stages([report], folder / "stages.png"),
    ]


def draw_composition(report: Report, path: Path) -> Path:
    """Prefill and decode tokens of the batches over time, means of the steps of a bin."""
    steps = _steps(report)
    times = np.array(steps.scheduled_s)
    edges, bins = _bins(times, report.duration_s)
    num_steps = np.bincount(bins, minlength=NUM_BINS)
    decodes, prefills = (
        np.bincount(bins, np.array(tokens, float), NUM_BINS) / np.maximum(num_steps, 1)
        for tokens in (steps.num_decode, steps.num_prefill)
    )
    figure, axes = one_panel(10, 3.5)
    axes.stairs(decodes + prefills, edges, baseline=decodes, fill=True, color=PREFILL)
    axes.stairs(decodes, edges, fill=True, color=DECODE)
    axes.set(
        xlabel="time, s",
        ylabel="tokens in a batch",
        title=f"{report.label}: means over {edges[1] - edges[0]:.2g} s",
        xlim=(0, edges[-1]),
        ylim=(0, None),
    )
    color_legend(figure, {"prefill": PREFILL, "decode": DECODE})
    return save(figure, path)


def draw_gaps(reports: Sequence[Report], path: Path, objective_s: float | None = None) -> Path:
    """How many of the times between tokens are longer than so much, down to the rarest."""
    figure, axes = one_panel(7, 4.5)
    for report, style in zip(reports, line_styles(), strict=False):
        gap_s, share = np.array(report.gaps.cdf() or [(1e-3, 0.0)]).T
        axes.step(gap_s * 1e3, 1 - share, where="post", label=report.label, **style.line)
    axes.axhline(0.01, color="grey", linewidth=1, linestyle=":", label="99% of gaps are shorter")
    if objective_s is not None:
        label = f"objective, {objective_s * 1e3:g} ms"
        axes.axvline(objective_s * 1e3, color="black", linewidth=1, linestyle="--", label=label)
    axes.set(xscale="log", yscale="log", ylim=(LEAST_SHARE, 1))
    axes.set(xlabel="time between two tokens, ms", ylabel="share of gaps that are longer")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.10g}%"))
    axes.grid(True, which="major", color="0.9")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return save(figure, path)


def draw_work(reports: Sequence[Report], path: Path) -> Path:
    """What the first stage does over time: shares of a bin's time, one panel for each run."""
    figure, panels = stacked_panels(len(reports), 2.8)
    for axes, report in zip(panels, reports, strict=True):
        steps = _steps(report)
        edges = np.linspace(0, report.duration_s, NUM_BINS + 1)
        spans = np.array([stages[0] for stages in steps.stages])
        kinds, below = _kinds(steps), np.zeros(NUM_BINS)
        for kind, color in KINDS.items():
            if kind != "idle":
                share = _busy_share(spans[kinds == kind], edges)
                axes.stairs(below + share, edges, baseline=below, fill=True, color=color)
                below = below + share
        axes.set(ylim=(0, 1), xlim=(0, edges[-1]), ylabel="share of the time")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        _title(axes, report)
    panels[-1].set_xlabel("time, s")
    color_legend(figure, KINDS)
    return save(figure, path)


def draw_stages(
    reports: Sequence[Report],
    path: Path,
    start_s: float | None = None,
    span_s: float | None = None,
) -> Path:
    """What each pipeline stage does for a while, one panel for each run, first on top.

    Args:
        reports: runs that kept their steps.
        path: where to draw.
        start_s: virtual time at which the panels begin; None: the middle of the run.
        span_s: virtual time that the panels show; None: that of some steps of the first run.
    """
    figure, panels = stacked_panels(len(reports), 2.5)
    begin_s = reports[0].duration_s / 2 if start_s is None else start_s
    if span_s is None:
        times = np.array(_steps(reports[0]).scheduled_s)
        last = min(int(np.searchsorted(times, begin_s)) + NUM_STEPS_SHOWN, len(times) - 1)
        span_s = max(float(times[last]) - begin_s, 1e-3)
    for axes, report in zip(panels, reports, strict=True):
        _draw_timeline(axes, report, begin_s, begin_s + span_s)
    panels[-1].set_xlabel("time, s")
    color_legend(figure, KINDS)
    return save(figure, path)


def _draw_timeline(axes: Axes, report: Report, begin_s: float, end_s: float) -> None:
    steps, num_stages = _steps(report), len(report.stage_busy_s)
    kinds, spans = _kinds(steps), np.array(steps.stages)
    for stage in range(num_stages):
        start, end = spans[:, stage].T
        for kind, color in KINDS.items():
            shown = (kinds == kind) & (start < end_s) & (end > begin_s)
            bars = list(zip(start[shown], (end - start)[shown], strict=True))
            axes.broken_barh(
                bars, (num_stages - stage - 0.4, 0.8), color=color, edgecolor="white", linewidth=0.3
            )
    axes.set_yticks(
        range(1, num_stages + 1), [f"stage {num_stages - i}" for i in range(num_stages)]
    )
    axes.set_xlim(begin_s, end_s)
    _title(axes, report)


def _kinds(steps: StepHistory) -> "np.ndarray[tuple[int], np.dtype[np.str_]]":
    """What each step holds, as ``KINDS`` calls it."""
    prefill, decode = np.array(steps.num_prefill) > 0, np.array(steps.num_decode) > 0
    return np.where(prefill & decode, "prefill and decode", np.where(prefill, "prefill", "decode"))


def _busy_share(spans: Floats, edges: Floats) -> Floats:
    """Share of each bin that intervals cover, which do not overlap."""
    if not len(spans):
        return np.zeros(len(edges) - 1)
    worked_s = np.cumsum(spans[:, 1] - spans[:, 0])
    until_s = np.stack([np.concatenate([[0.0], worked_s[:-1]]), worked_s], axis=1)
    covered_s = np.interp(edges, spans.ravel(), until_s.ravel())
    return np.asarray(np.diff(covered_s) / np.diff(edges))


def _bins(
    times: Floats, end_s: float
) -> tuple[Floats, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """The edges of the bins of a run, and each time's bin."""
    edges = np.linspace(0, end_s, NUM_BINS + 1)
    return edges, np.clip(np.searchsorted(edges, times, side="right") - 1, 0, NUM_BINS - 1)


def _steps(report: Report) -> StepHistory:
    if report.steps is None:
        raise ValueError("report.steps=None: run with keep_steps=True to draw its steps")
    return report.steps


def _title(axes: Axes, report: Report) -> None:
    idle = report.idle_share
    whose = "stages" if len(report.stage_busy_s) > 1 else "GPU"
    text = report.label if idle is None else f"{report.label}: {whose} idle {idle:.0%} of the run"
    axes.set_title(text, loc="left")
