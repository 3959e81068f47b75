"""Cost against latency of every run of a plan."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from vllm_sarathi.simulator.plan.plan import Plan
from vllm_sarathi.simulator.plan.rows import points
from vllm_sarathi.simulator.results.plots import PLAIN

# Okabe and Ito's colours, with markers that tell in print too.
LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
LATENCIES = (("ttft_p99_s", "P99 TTFT, s"), ("tpot_p99_ms", "P99 TPOT, ms"))


def draw_plan(plan: Plan, path: Path) -> Path:
    """Draw what an hour costs against latency, with the Pareto front of each scheduler.

    Filled markers serve the load within its objectives; hollow ones, of runs to the end, do not.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(LATENCIES))
    for axes, (metric, label) in zip(panels, LATENCIES, strict=True):
        for family, look in zip(_families(plan), cycle(LOOKS)):
            _draw_family(axes, plan, family, metric, *look)
        axes.set(xlabel="USD per hour", ylabel=label, yscale="log", xlim=(0, None))
        axes.yaxis.set_major_formatter(PLAIN)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _families(plan: Plan) -> list[str]:
    return list(dict.fromkeys(choice.engine.scheduler for choice in plan.choices))


def _draw_family(
    axes: Axes, plan: Plan, family: str, metric: str, colour: str, marker: str
) -> None:
    """One scheduler's runs, its front, and the names of the deployments on the front."""
    served: dict[tuple[float, float], str] = {}
    for index, usd, outcome in points(plan):
        choice, value = plan.choices[index], outcome["figures"].get(metric)
        if choice.engine.scheduler != family or value is None:
            continue
        if outcome["holds"]:
            served[usd, value] = f"{outcome['replicas']} x {choice.candidate.deployment.name}"
        elif outcome["is_whole"]:
            axes.scatter(usd, value, s=36, marker=marker, facecolors="none", edgecolors=colour)
    if not served:
        return
    costs, latencies = zip(*served, strict=True)
    axes.scatter(costs, latencies, s=36, marker=marker, color=colour, label=family)
    front = pareto_front(list(served))
    axes.step(*zip(*front, strict=True), where="post", color=colour, linewidth=1)
    axes.annotate(
        f"{family}: {served[front[0]]}",
        front[0],
        textcoords="offset points",
        xytext=(6, 6),
        fontsize=8,
    )


def pareto_front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, latency) of which none is both cheaper and faster; the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, latency in sorted(places):
        if not front or latency < front[-1][1]:
            front.append((cost, latency))
    return front
