"""Pictures of runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vllm_sarathi.simulator.results.report import Report

# Steps beyond this many would be thinner than a pixel.
MAX_STEPS_SHOWN = 400
PREFILL, DECODE, MIXED = "#d95f02", "#1b9e77", "#7570b3"


def draw_run(report: Report, folder: Path) -> list[Path]:
    """Draw a run that kept its steps (``keep_steps=True``); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        draw_composition(report, folder / "composition.png"),
        draw_tbt_cdf([report], folder / "tbt_cdf.png"),
        draw_stages([report], folder / "stages.png"),
    ]


def draw_composition(report: Report, path: Path) -> Path:
    """Prefill and decode tokens of the batches over time."""
    if report.steps is None:
        raise ValueError("report.steps=None: run with keep_steps=True to draw its steps")
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots()
    times, decodes = np.array(report.steps.scheduled_s), np.array(report.steps.num_decode)
    total = decodes + np.array(report.steps.num_prefill)
    axes.fill_between(times, decodes, total, step="post", color=PREFILL, label="prefill")
    axes.fill_between(times, 0, decodes, step="post", color=DECODE, label="decode")
    axes.set(xlabel="time (s)", ylabel="tokens in the batch", title=report.label)
    axes.legend(loc="upper right")
    return _save(figure, path)


def draw_tbt_cdf(reports: Sequence[Report], path: Path) -> Path:
    """Distribution of the times between tokens."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for report in reports:
        points = np.array(report.gaps.cdf() or [(1e-3, 0.0)])
        axes.step(points[:, 0] * 1e3, points[:, 1], where="post", label=report.label)
    axes.set(xlabel="time between tokens (ms)", ylabel="share of gaps", xscale="log", ylim=(0, 1))
    axes.axhline(0.99, color="grey", linewidth=0.7, linestyle=":")
    axes.legend()
    return _save(figure, path)


def draw_stages(
    reports: Sequence[Report],
    path: Path,
    start_s: float | None = None,
    span_s: float | None = None,
) -> Path:
    """What each pipeline stage does over time, one panel for each run, first on top.

    Args:
        reports: runs that kept their steps.
        path: where to draw.
        start_s: virtual time at which the panels begin; None: the middle of the run.
        span_s: virtual time that the panels show; None: as many steps as fit.
    """
    figure = Figure(figsize=(12, 2.5 * len(reports)), layout="constrained")
    panels = figure.subplots(len(reports), 1, sharex=True, squeeze=False)[:, 0]
    for axes, report in zip(panels, reports, strict=True):
        if report.steps is None:
            raise ValueError("report.steps=None: run with keep_steps=True to draw its steps")
        begin_s = report.duration_s / 2 if start_s is None else start_s
        _draw_timeline(axes, report, begin_s)
        if span_s is not None:
            axes.set_xlim(begin_s, begin_s + span_s)
    panels[-1].set_xlabel("time (s)")
    return _save(figure, path)


def _draw_timeline(axes: Axes, report: Report, begin_s: float) -> None:
    assert report.steps is not None
    steps, num_stages = report.steps, len(report.stage_busy_s)
    first = int(np.searchsorted(np.array(steps.scheduled_s), begin_s))
    first = max(first - num_stages - 1, 0)  # those still in flight
    for index in range(first, min(first + MAX_STEPS_SHOWN, len(steps.stages))):
        has_decode, has_prefill = bool(steps.num_decode[index]), bool(steps.num_prefill[index])
        color = MIXED if has_decode and has_prefill else PREFILL if has_prefill else DECODE
        for stage, (started_s, ended_s) in enumerate(steps.stages[index]):
            axes.barh(
                num_stages - stage,
                ended_s - started_s,
                left=started_s,
                color=color,
                edgecolor="white",
                linewidth=0.3,
            )
    axes.set_yticks(
        range(1, num_stages + 1), [f"stage {num_stages - i}" for i in range(num_stages)]
    )
    idle = report.idle_share
    axes.set_title(f"{report.label}: stages idle {idle:.0%}" if idle is not None else report.label)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
