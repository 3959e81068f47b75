"""What all pictures share: colours that the colour-blind tell apart, panels, legends."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's palette, without its yellow, which a white page swallows.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = "os^DvPX*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")


@dataclass(frozen=True, slots=True)
class LineStyle:
    """How one engine is drawn; markers and dashes tell it apart in grey print."""

    color: str
    marker: str
    dashes: Any

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a line without markers."""
        return {"color": self.color, "linestyle": self.dashes}

    @property
    def marked_line(self) -> dict[str, Any]:
        """Arguments of a line with markers."""
        return {**self.line, "marker": self.marker, "markersize": 5}


def line_styles() -> Iterator[LineStyle]:
    """A style for each engine, in their order; they have different periods."""
    for color, marker, dashes in zip(cycle(COLORS), cycle(MARKERS), cycle(DASHES), strict=False):
        yield LineStyle(color, marker, dashes)


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.xaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_major_formatter(PLAIN)
    return figure, axes


def stacked_panels(num: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with panels one below the other, each so many inches high."""
    figure = Figure(figsize=(12, 0.5 + height * num), layout="constrained")
    panels = list(figure.subplots(num, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.xaxis.set_major_formatter(PLAIN)
    return figure, panels


def color_legend(figure: Figure, colors: dict[str, str]) -> None:
    """Above the panels, never over what they show."""
    patches = [
        Patch(facecolor=color, edgecolor="0.5", label=name) for name, color in colors.items()
    ]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure; returns the file."""
    figure.savefig(path, dpi=120)
    return path
