"""Cost against latency of every run of a plan."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.plan.plan import Plan
from vllm_sarathi.simulator.plan.rows import points
from vllm_sarathi.simulator.results.style import PLAIN, LineStyle, line_styles, save

# Figure, axis, the objective that is drawn beside it with its unit, and the axis' scale.
LATENCIES = (
    ("ttft_p99_s", "P99 TTFT, s", "ttft_s", 1.0, "log"),
    ("tpot_p99_ms", "P99 TPOT, ms", "tpot_s", 1e3, "linear"),
)


def draw_plan(plan: Plan, path: Path) -> Path:
    """Draw what an hour costs against latency, with the Pareto front of each scheduler.

    Filled markers serve the load within its objectives; hollow ones, of runs to the end, do not.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(LATENCIES))
    for axes, (metric, label, asked, unit, scale) in zip(panels, LATENCIES, strict=True):
        for family, style in zip(_families(plan), line_styles(), strict=False):
            _draw_family(axes, plan, family, metric, style)
        if (limit_s := _limit_s(plan.demand.goal, asked)) is not None:
            axes.axhline(limit_s * unit, color="grey", linestyle=":", label="objective")
        axes.set(xlabel="USD per hour", ylabel=label, yscale=scale, xlim=(0, None))
        if scale == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(PLAIN)
        axes.grid(alpha=0.3)
    named: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(named.values()), list(named), loc="outside lower center", ncols=3,
        title="filled: serves the load within the objectives; hollow: does not",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, path)


def _limit_s(goal: CapacityGoal, asked: str) -> float | None:
    """The tighter of what is asked of the 99th percentile and of each request."""
    of_each = None if goal.objectives is None else getattr(goal.objectives, asked)
    limits_s = [one for one in (getattr(goal, asked), of_each) if one is not None]
    return min(limits_s, default=None)


def _families(plan: Plan) -> list[str]:
    return list(dict.fromkeys(choice.engine.scheduler for choice in plan.choices))


def _draw_family(axes: Axes, plan: Plan, family: str, metric: str, style: LineStyle) -> None:
    """One scheduler's runs and its front."""
    served = []
    for index, usd, outcome in points(plan):
        value = outcome["figures"].get(metric)
        if plan.choices[index].engine.scheduler != family or value is None:
            continue
        if outcome["holds"]:
            served.append((usd, value))
        elif outcome["is_whole"]:
            axes.scatter(
                usd, value, s=36, marker=style.marker, facecolors="none", edgecolors=style.color
            )
    if not served:
        return
    costs, latencies = zip(*served, strict=True)
    axes.scatter(
        costs, latencies, s=36, marker=style.marker, color=style.color, label=_name(plan, family)
    )
    front = zip(*pareto_front(served), strict=True)
    axes.step(*front, where="post", linewidth=1, **style.line)


def _name(plan: Plan, family: str) -> str:
    index = plan.search.best(family)
    assert index is not None
    best, option = plan.choices[index], plan.search.options[index]
    return f"{family}, at least {option.holds} x {best.candidate.deployment.name}"


def pareto_front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, latency) of which none is both cheaper and faster; the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, latency in sorted(places):
        if not front or latency < front[-1][1]:
            front.append((cost, latency))
    return front
