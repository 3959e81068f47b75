"""What serving prompts by deadline does to the time to first token, in virtual time.

Each case of ``capacity.py`` at the rate that stock vLLM's best static budget holds there
(``--capacity``, what ``capacity.py`` wrote): that budget, our scheduler, and our scheduler
with an objective for the first token.
"""

import argparse
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

from capacity import (
    BY_DEADLINE,
    LEARNED,
    RESULTS,
    STEP_NOISE,
    Search,
    Steady,
    best_static,
    mean_rate,
)
from rich.progress import track
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import CapacityGoal, Objectives, deployment, simulate
from vllm_sarathi.simulator.results.comparison import default_num_jobs, run_all

STOCK, IN_TIME = "best static", "in_time"
SIDES = (STOCK, LEARNED, BY_DEADLINE)
TTFT_S = CapacityGoal().scheduling_delay_s
FIGURES = {
    IN_TIME: f"in {TTFT_S:g} s",
    "ttft_p50_s": "P50",
    "ttft_p90_s": "P90",
    "ttft_p99_s": "P99",
    "tbt_p99_ms": "P99 TBT, ms",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One side of a case at a rate."""

    side: str
    search: Search
    rate: float

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return f"{self.search.case}, {self.side}, {self.rate:.2f}/s, seed {self.search.seed}"

    def run(self) -> Figures:
        """Run it."""
        search = self.search
        report = simulate(
            search.settings(),
            deployment(search.deployment),
            search.traffic.at(self.rate, search.seed),
            noise=STEP_NOISE,
            seed=search.seed,
        )
        in_time = report.goodput(Objectives(ttft_s=TTFT_S))
        return {**report.summary(), "engine": search.engine, IN_TIME: in_time}


def sides(case: Search, capacities: dict[str, list[Figures]]) -> list[Run]:
    """The runs of a case at the rate of its best static budget."""
    best = best_static(capacities)
    rate = mean_rate(capacities[best])
    engines = {STOCK: best, LEARNED: LEARNED, BY_DEADLINE: BY_DEADLINE}
    return [Run(side, replace(case, engine=engine), rate) for side, engine in engines.items()]


def table(cases: dict[str, dict[str, list[Figures]]]) -> str:
    """Markdown: share of first tokens in time, and times to first token in seconds."""
    head = [f"{side}: {name}" for side, name in product(SIDES, FIGURES.values())]
    rows = ["| case, rate | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    columns = list(product(SIDES, FIGURES))
    found = {
        case: [fmean(run[figure] for run in runs[side]) for side, figure in columns]
        for case, runs in cases.items()
        if set(runs) == set(SIDES)
    }
    found["mean"] = [fmean(values) for values in zip(*found.values(), strict=True)]
    for case, values in found.items():
        cells = [
            f"{value:.0%}" if figure == IN_TIME else f"{value:.2f}"
            for (_, figure), value in zip(columns, values, strict=True)
        ]
        rows.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capacity", type=Path, default=RESULTS / "capacity.json", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "prompt_order.json")
    arguments = parser.parse_args()
    capacities = Runs(arguments.capacity, (), resume=True).by_case()
    asked = [
        run
        for seed, (name, found) in product(range(arguments.seeds), capacities.items())
        for run in sides(case_named(name, seed), found)
    ]
    runs = Runs(arguments.output, [run.key for run in asked], arguments.resume)
    todo = [run for run in asked if run.key not in runs.figures]
    done = run_all(Run.run, todo, arguments.jobs)
    for index, figures in track(done, "runs", total=len(todo)):
        runs.add(todo[index].key, figures)
    runs.write_table(table(runs.by_case()))


def case_named(name: str, seed: int) -> Search:
    """A case of ``capacity.py`` by the name that it has in its results."""
    deployment, workload, objective, load = name.split(", ")
    num_requests, seconds = load.removesuffix(" s").split(" requests or ")
    traffic = Steady(workload, int(num_requests), float(seconds))
    return Search(LEARNED, deployment, traffic, int(objective.removesuffix(" ms")), seed)


if __name__ == "__main__":
    main()
