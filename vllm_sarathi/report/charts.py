"""Charts as SVG paths over a 0..100 square that the page stretches.

Labels are not in the SVG: as text of the page they stay readable at any width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np

from vllm_sarathi.report.series import Bools, Floats
from vllm_sarathi.report.words import clock

_STEPS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
            3600, 7200, 14400, 43200, 86400, 604800)  # fmt: skip
_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis, at so many percent of it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something drawn.

    Attributes:
        name: for the legend; empty for none.
        color: its class in the page's style.
        kind: "line", "dashed", "area" or "bars".
        path: SVG path data.
    """

    name: str
    color: str
    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        title: what it shows.
        note: how to read it.
        x_ticks: labels of time.
        y_ticks: labels of values.
        marks: what is drawn, the last on top.
    """

    title: str
    note: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The horizontal axis.

    Attributes:
        begin_s: where it begins.
        end_s: where it ends.
    """

    begin_s: float
    end_s: float

    def at(self, time_s: float) -> float:
        """Percent of the axis."""
        return 100 * (time_s - self.begin_s) / max(self.end_s - self.begin_s, 1e-9)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Round times."""
        span_s = self.end_s - self.begin_s
        step_s = next((s for s in _STEPS_S if span_s / s <= _MOST_TICKS), span_s / _MOST_TICKS)
        first = int(-(-self.begin_s // step_s))
        times = (round(n * step_s, 2) for n in range(first, int(self.end_s / step_s) + 1))
        return tuple(Tick(self.at(time_s), clock(time_s)) for time_s in times)


@dataclass(frozen=True, slots=True)
class ValueAxis:
    """The vertical axis, from 0.

    Attributes:
        top: its upper end.
        text: writes a value.
    """

    top: float
    text: Callable[[float], str]

    def at(self, value: float) -> float:
        """Percent from above, as SVG counts."""
        return 100 * (1 - min(max(value, 0.0), self.top) / self.top)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Round values."""
        step = _round_step(self.top / 4)
        values = (n * step for n in range(int(self.top / step + 1e-9) + 1))
        return tuple(Tick(self.at(value), self.text(value)) for value in values)


def value_axis(most: float, text: Callable[[float], str]) -> ValueAxis:
    """An axis up to a little more than the largest value."""
    return ValueAxis(1.08 * most if most > 0 else 1.0, text)


def _round_step(rough: float) -> float:
    power = 10.0 ** floor(log10(rough))
    return float(next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999) * power)


def line(times_s: Floats, values: Floats, idle: Bools, x: TimeAxis, y: ValueAxis) -> str:
    """A line through the values that are known, broken where the engine was idle."""
    path, pen = list[str](), "M"
    for time_s, value, is_idle in zip(times_s, values, idle, strict=True):
        if is_idle:
            pen = "M"
        elif not np.isnan(value):
            # "h0" makes a lone value a dot.
            path.append(f"{pen}{x.at(time_s):.2f} {y.at(value):.2f}" + "h0" * (pen == "M"))
            pen = "L"
    return "".join(path)


def level(value: float, y: ValueAxis) -> str:
    """A horizontal line."""
    return f"M0 {y.at(value):.2f}H100"


def stack(times_s: Floats, layers: Sequence[Floats], x: TimeAxis, y: ValueAxis) -> tuple[str, ...]:
    """Areas on top of each other; what is not known counts as nothing."""
    below, paths = np.zeros(len(times_s)), []
    for values in layers:
        above = below + np.nan_to_num(values)
        there = " ".join(f"L{x.at(t):.2f} {y.at(v):.2f}" for t, v in zip(times_s, above))  # noqa: B905
        back = " ".join(
            f"L{x.at(t):.2f} {y.at(v):.2f}"
            for t, v in zip(times_s[::-1], below[::-1])  # noqa: B905
        )
        paths.append(f"M{there[1:]} {back}Z" if len(times_s) else "")
        below = above
    return tuple(paths)


def bars(times_s: Floats, values: Floats, width_s: float, x: TimeAxis, y: ValueAxis) -> str:
    """A bar for each value above 0."""
    half = x.at(x.begin_s + width_s) / 2
    return "".join(
        f"M{max(x.at(t) - half, 0):.2f} 100V{y.at(v):.2f}H{min(x.at(t) + half, 100):.2f}V100Z"
        for t, v in zip(times_s.tolist(), values.tolist())  # noqa: B905
        if v > 0
    )


def box(begin_s: float, end_s: float, top: float, bottom: float, x: TimeAxis) -> str:
    """A rectangle between two times and two heights in percent, cut at the ends of the axis."""
    left, right = max(x.at(begin_s), 0.0), min(x.at(end_s), 100.0)
    return f"M{left:.3f} {top:.2f}H{right:.3f}V{bottom:.2f}H{left:.3f}Z" if right > left else ""
