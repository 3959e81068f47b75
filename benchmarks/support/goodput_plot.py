"""Draws goodput against the offered rate."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from support.runs import Figures

BEST_STATIC = "best static"
# Okabe and Ito's colours, which the colour-blind can tell apart; markers tell them too. Both may
# repeat across pictures, not within one.
STYLES = {
    "ours": ("#D55E00", "o"),
    "prototype": ("#009E73", "s"),
    BEST_STATIC: ("#0072B2", "^"),
    "stock 2048": ("#000000", "v"),
    "ours (nothing set)": ("#E69F00", "D"),
    "QoServe, TPOT from first token": ("#009E73", "s"),
    "SlidingServe": ("#CC79A7", "D"),
    "FairBatching, TPOT from first token": ("#56B4E9", "v"),
}
_STATIC = re.compile(r"(stock )?\d+/\d+/\d+( adaptive)?( every \d+)?")


def draw(
    runs: Mapping[str, Figures], path: Path, foot: str, part: str = "load", num_columns: int = 2
) -> None:
    """One panel a case, one line an engine: requests per second in time by those offered.

    Args:
        runs: figures by key.
        path: where the picture goes.
        foot: what stands under it.
        part: whose runs are drawn.
        num_columns: panels side by side.
    """
    found: dict[str, dict[str, dict[str, list[Figures]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for key, figures in runs.items():
        if key.startswith(f"{part}: "):
            engine = figures["label"]
            case, load = key.removeprefix(f"{part}: ").split(f", {engine}, ")
            found[case][engine][load.rsplit(", ", 1)[0]].append(figures)
    num_rows = -(-len(found) // num_columns)
    fig, panels = plt.subplots(
        num_rows,
        num_columns,
        figsize=(5.5 * num_columns, 0.4 + 4.2 * num_rows),
        layout="constrained",
        squeeze=False,
    )
    for axes, (case, engines) in zip(panels.flat, found.items(), strict=False):
        draw_panel(axes, case, engines)
    for axes in panels.flat[len(found) :]:
        axes.axis("off")
    handles, labels = panels[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    fig.supxlabel(foot, fontsize=7, color="0.4")
    fig.savefig(path, dpi=130)
    plt.close(fig)


def draw_panel(axes: Axes, case: str, engines: Mapping[str, Mapping[str, list[Figures]]]) -> None:
    """A case: the best of the static settings at each rate, and the others."""
    lines = {name: points(loads) for name, loads in engines.items()}
    statics = [line for name, line in lines.items() if _STATIC.fullmatch(name)]
    lines[BEST_STATIC] = [
        max(at_rate, key=lambda point: point[1]) for at_rate in zip(*statics, strict=True)
    ]
    most = max(rate for rate, _ in lines[BEST_STATIC])
    axes.plot([0, most], [0, most], ":", color="grey", label="all offered")
    drawn = [name for name in STYLES if name in lines]
    for behind, name in enumerate(drawn):
        colour, marker = STYLES[name]
        rates, goodputs = zip(*lines[name], strict=True)
        axes.plot(rates, goodputs, marker=marker, color=colour, label=name, zorder=9 - behind)
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
