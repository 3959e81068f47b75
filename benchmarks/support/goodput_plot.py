"""Draws goodput against the offered rate."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from support.runs import Figures

# Okabe and Ito's colours, which the colour-blind can tell apart; markers tell them too.
STYLES = {
    "ours": ("#D55E00", "o"),
    "prototype": ("#009E73", "s"),
    "best static": ("#0072B2", "^"),
    "stock 2048": ("#000000", "v"),
    "ours (nothing set)": ("#E69F00", "D"),
}


def draw(runs: Mapping[str, Figures], path: Path, foot: str) -> None:
    """One panel a case, one line an engine: requests per second in time by those offered.

    Args:
        runs: figures by key; those of the part "load" are drawn.
        path: where the picture goes.
        foot: what stands under it.
    """
    found: dict[str, dict[str, dict[str, list[Figures]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for key, figures in runs.items():
        if key.startswith("load: "):
            case, engine, load, _ = key.removeprefix("load: ").rsplit(", ", 3)
            found[case][engine][load].append(figures)
    fig, panels = plt.subplots(
        1, len(found), figsize=(5.5 * len(found), 4.6), layout="constrained", squeeze=False
    )
    for axes, (case, engines) in zip(panels[0], found.items(), strict=True):
        draw_panel(axes, case, engines)
    handles, labels = panels[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    fig.supxlabel(foot, fontsize=7, color="0.4")
    fig.savefig(path, dpi=130)
    plt.close(fig)


def draw_panel(axes: Axes, case: str, engines: Mapping[str, Mapping[str, list[Figures]]]) -> None:
    """A case: the best of the static settings at each rate, and the others."""
    lines = {name: points(loads) for name, loads in engines.items()}
    statics = [line for name, line in lines.items() if name not in STYLES]
    lines["best static"] = [
        max(at_rate, key=lambda point: point[1]) for at_rate in zip(*statics, strict=True)
    ]
    most = max(rate for rate, _ in lines["best static"])
    axes.plot([0, most], [0, most], ":", color="grey", label="all offered")
    for name, (colour, marker) in STYLES.items():
        rates, goodputs = zip(*lines[name], strict=True)
        axes.plot(rates, goodputs, marker=marker, color=colour, label=name)
    axes.set_title(case, loc="left", fontsize="medium")
    axes.grid(True, color="0.92")
    axes.set_xlabel("offered, requests/s")
    axes.set_ylabel("in time, requests/s")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def points(loads: Mapping[str, list[Figures]]) -> list[tuple[float, float]]:
    """Offered rate and goodput of each load, mean over seeds."""
    return [
        (fmean(f["rate_rps"] for f in runs), fmean(f["goodput_rps"] for f in runs))
        for runs in loads.values()
    ]
