"""Draws panels of the dashboard from what Prometheus returned."""

from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from support.dashboard import Panel

_COLUMNS = 3
_UNITS = {"s": "seconds", "ops": "per second", "reqps": "requests per second"}


class Line(NamedTuple):
    """A series of a panel: its legend, seconds since the beginning, and values."""

    legend: str
    times_s: list[float]
    values: list[float]


def draw(found: list[tuple[Panel, list[Line]]], busy_s: tuple[float, float], path: Path) -> None:
    """A grid of panels.

    Args:
        found: panels, each with its lines.
        busy_s: beginning and end of what is shaded.
        path: where the picture goes.
    """
    rows = -(-len(found) // _COLUMNS)
    figure, grid = plt.subplots(
        rows, _COLUMNS, figsize=(14, 3.1 * rows), sharex=True, layout="constrained", squeeze=False
    )
    for axes, (panel, lines) in zip(grid.flat, found, strict=False):
        _draw_panel(axes, panel, lines)
        axes.axvspan(*busy_s, color="grey", alpha=0.12, linewidth=0)
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_panel(axes: Axes, panel: Panel, lines: list[Line]) -> None:
    lines = [line for line in lines if any(line.values)]
    if panel.kind == "stacked":
        _stack(axes, lines)
    else:
        for line in lines:
            is_objective = line.legend == "objective"
            color, dashes = ("black", "--") if is_objective else (None, "-")
            axes.plot(line.times_s, line.values, dashes, color=color, label=line.legend)
    axes.set_title(panel.title, loc="left", fontsize="medium")
    axes.set_ylabel(_UNITS.get(panel.unit, ""), fontsize="small")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if panel.unit == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(0, 1.05)
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.25)
    axes.legend(fontsize="x-small", loc="best", framealpha=0.7)


def _stack(axes: Axes, lines: list[Line]) -> None:
    """Lines on top of each other, 0 where one has no value."""
    times_s = sorted({time_s for line in lines for time_s in line.times_s})
    columns = [dict(zip(line.times_s, line.values, strict=True)) for line in lines]
    heights = [[column.get(time_s, 0.0) for time_s in times_s] for column in columns]
    axes.stackplot(times_s, heights, labels=[line.legend for line in lines], alpha=0.7)
