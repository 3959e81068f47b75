"""Draws when tokens arrived."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from support.http_load import LoadResult


def draw(results: dict[str, LoadResult], path: Path) -> None:
    """One panel a server, one row a stream of chats, one mark a token.

    Args:
        results: what the load saw, by the name of the panel.
        path: where the picture goes.
    """
    figure, panels = plt.subplots(
        len(results), 1, figsize=(11, 2.6 * len(results)), sharex=True, layout="constrained"
    )
    for axes, (name, result) in zip(panels, results.items(), strict=True):
        draw_panel(axes, name, result)
    panels[0].legend(loc="upper right", fontsize="small")
    panels[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_panel(axes: Axes, name: str, result: LoadResult) -> None:
    rows = result.load.num_streams
    for row in range(rows):
        times = [
            time_s - result.began_s
            for stream in result.streams
            if stream.name.startswith(f"chat {row}.")
            for time_s in stream.times.token_times_s
        ]
        label = "a token of a chat" if row == 0 else None
        axes.plot(times, [row] * len(times), "|", markersize=14, color="tab:blue", label=label)
    arrivals = [s.times.arrival_s - result.began_s for s in result.streams if "long" in s.name]
    for i, arrival in enumerate(arrivals):
        label = "a long prompt arrives" if i == 0 else None
        axes.axvline(arrival, color="tab:red", linewidth=1, label=label)
    axes.set_title(name, loc="left")
    axes.set_yticks(range(rows), [f"chat {row}" for row in range(rows)])
    axes.set_ylim(-0.6, rows - 0.2)
