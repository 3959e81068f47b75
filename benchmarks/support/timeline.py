"""Draws when tokens arrived."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

TOKEN, ARRIVAL = "tab:blue", "tab:red"


def draw(results: Mapping[str, Mapping[str, Any]], path: Path, foot: str) -> None:
    """One panel a server, one row a stream of chats, one mark a token.

    Args:
        results: what the load saw (``LoadResult.as_json``), by the name of the panel.
        path: where the picture goes.
        foot: what stands under it.
    """
    figure, panels = plt.subplots(
        len(results), 1, figsize=(11, 0.4 + 2.4 * len(results)), sharex=True, layout="constrained"
    )
    for axes, (name, result) in zip(panels, results.items(), strict=True):
        draw_panel(axes, name, result)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    panels[-1].set_xlabel("time, s")
    figure.supxlabel(foot, fontsize=7, color="0.4")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_panel(axes: Axes, name: str, result: Mapping[str, Any]) -> None:
    """A server's chats, and the longest gap between two tokens of one of them."""
    rows, requests = result["load"]["num_streams"], result["requests"]
    for row in range(rows):
        own = [one["token_times_s"] for one in requests if one["name"].startswith(f"chat {row}.")]
        times = [time_s for tokens in own for time_s in tokens]
        label = "a token of a chat" if row == 0 else None
        axes.plot(times, [row] * len(times), "|", ms=15, mew=0.6, color=TOKEN, label=label)
    arrivals = [one["arrival_s"] for one in requests if "long" in one["name"]]
    for i, arrival_s in enumerate(arrivals):
        label = "a long prompt arrives" if i == 0 else None
        axes.axvline(arrival_s, color=ARRIVAL, linewidth=1.2, label=label)
    chats = [one["token_times_s"] for one in requests if one["name"].startswith("chat ")]
    longest_s = max(later - earlier for tokens in chats for earlier, later in pairwise(tokens))
    axes.set_title(f"{name}: longest gap between two tokens {1e3 * longest_s:.0f} ms", loc="left")
    axes.set_yticks(range(rows), [f"chat {row}" for row in range(rows)])
    axes.set_ylim(-0.6, rows - 0.4)
    axes.set_xlim(left=0)
