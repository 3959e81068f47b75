"""Cost against latency of every run of a plan."""

from pathlib import Path

from matplotlib.figure import Figure

from vllm_sarathi.simulator.plan.plan import Plan
from vllm_sarathi.simulator.plan.rows import points

# Okabe and Ito's colours, with markers that tell in print too.
LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
LATENCIES = (("ttft_p99_s", "P99 TTFT, s"), ("tpot_p99_ms", "P99 TPOT, ms"))


def draw_plan(plan: Plan, path: Path) -> Path:
    """Draw the Pareto picture: what an hour costs against latency, with the front of each scheduler.

    Filled markers serve the load within its objectives, hollow ones ran to the end and miss them.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    every_axes = figure.subplots(1, len(LATENCIES))
    families = dict.fromkeys(choice.engine.scheduler for choice in plan.choices)
    for axes, (metric, label) in zip(every_axes, LATENCIES, strict=True):
        for family, (colour, marker) in zip(families, LOOKS, strict=False):
            runs = [
                (usd, outcome["figures"][metric], outcome["holds"])
                for index, usd, outcome in points(plan)
                if plan.choices[index].engine.scheduler == family
                and outcome["is_whole"]
                and outcome["figures"].get(metric) is not None
            ]
            for holds in (True, False):
                shown = [(usd, value) for usd, value, held in runs if held is holds]
                axes.scatter(
                    [usd for usd, _ in shown],
                    [value for _, value in shown],
                    marker=marker,
                    s=36,
                    facecolors=colour if holds else "none",
                    edgecolors=colour,
                    label=f"{family}: {'serves the load' if holds else 'misses an objective'}",
                )
            held = [(usd, value) for usd, value, holds in runs if holds]
            axes.step(*_front(held), where="post", color=colour, linewidth=1)
        axes.set(xlabel="USD per hour", ylabel=label, yscale="log")
        axes.grid(alpha=0.3)
    for index in plan.best:
        _mark(plan, index, every_axes)
    every_axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
