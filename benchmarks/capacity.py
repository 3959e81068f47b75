"""Capacity of the learned budget beside every static budget of stock vLLM, in virtual time.

The rival "oracle" is our scheduler with the simulator's own cost model in place of the
learned one: the bound of what learning can reach. "sarathi fcfs" serves prompts as they came, as
stock vLLM does: short prompts first lower the median delay, and so raise capacity. Results are
written after each search; ``--resume`` takes up a run that was interrupted.
"""

import argparse
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

from support.oracle import oracle
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import (
    LENGTHS,
    Arrivals,
    CapacityGoal,
    EngineSettings,
    Synthetic,
    Workload,
    deployment,
    find_capacity,
)
from vllm_sarathi.simulator.results.comparison import default_num_jobs

RESULTS = Path(__file__).parent / "results"
DEPLOYMENTS = ("a100-llama-3-8b", "h100-llama-3-8b")
WORKLOADS = ("sharegpt", "arxiv", "conversation", "code")
OBJECTIVES_MS = (50, 100)
STATIC_BUDGETS = ("256", "384", "512", "768", "1024", "2048")
LEARNED, ORACLE, IN_ORDER = "sarathi", "oracle", "sarathi fcfs"
ENGINES = (*STATIC_BUDGETS, LEARNED, ORACLE, IN_ORDER)
CODE_ARRIVALS_CV = 3.0  # bursts: a third of the variation of the Azure coding trace
STEP_NOISE = 0.02


@dataclass(frozen=True, slots=True)
class Steady:
    """A workload that lasts: a fast deployment gets more requests of it."""

    workload: str
    num_requests: int
    seconds: float

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.workload

    def at(self, rate: float, seed: int) -> Workload:
        """The workload at a mean rate."""
        num = max(self.num_requests, math.ceil(rate * self.seconds))
        arrivals = Arrivals(cv=CODE_ARRIVALS_CV if self.workload == "code" else 1.0)
        return Synthetic(LENGTHS[self.workload], num, arrivals).at(rate, seed)


@dataclass(frozen=True, slots=True)
class Search:
    """An engine in a case: a deployment, a workload and an objective."""

    engine: str
    deployment: str
    traffic: Steady
    tbt_ms: int
    seed: int
    start_rate: float = 2.0

    @property
    def case(self) -> str:
        """What tables call the case."""
        return f"{self.deployment}, {self.traffic.workload}, {self.tbt_ms} ms"

    @property
    def key(self) -> str:
        """What tells its result from others."""
        load = f"{self.traffic.num_requests} requests or {self.traffic.seconds:g} s"
        return f"{self.case}, {self.engine}, {load}, seed {self.seed}"

    def settings(self) -> EngineSettings:
        """How the engine is set up."""
        if self.engine in STATIC_BUDGETS:
            return EngineSettings("stock", max_num_batched_tokens=int(self.engine))
        ours: dict[str, Any] = {"tbt_slo_ms": self.tbt_ms}
        if self.engine == IN_ORDER:
            ours["order"] = "fcfs"
        limits: dict[str, Any] = {"max_num_batched_tokens": 8192, "label": self.engine}
        if self.engine == ORACLE:
            return oracle(deployment(self.deployment), STEP_NOISE, ours, **limits)
        return EngineSettings("sarathi", ours, **limits)

    def starting_from(self, found: dict[str, dict[str, Any]]) -> "Search":
        """The same, begun at the capacity of the seed before where that is known."""
        before = found.get(replace(self, seed=self.seed - 1).key)
        return replace(self, start_rate=max(before["capacity_rps"], 0.1)) if before else self

    def run(self) -> dict[str, Any]:
        """Search."""
        found = find_capacity(
            self.settings(),
            deployment(self.deployment),
            self.traffic,
            CapacityGoal(tbt_s=self.tbt_ms / 1e3),
            seed=self.seed,
            noise=STEP_NOISE,
            start_rate=self.start_rate,
            steady=False,  # ``Steady`` decides
        )
        return found.summary()


def table(cases: dict[str, dict[str, list[Figures]]]) -> str:
    """Markdown: capacities in requests per second, mean over seeds, and the ratios."""
    seeds = {
        engine: max(len(found.get(engine, ())) for found in cases.values()) for engine in ENGINES
    }
    head = [f"{engine} ({seeds[engine]} seeds)" for engine in ENGINES]
    head += ["P99 TBT, ms", "to best static", "to 2048", "to oracle", "fcfs to best static"]
    rows = ["| case | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    ratios = []
    for case, found in cases.items():
        if set(found) != set(ENGINES):
            continue
        best = best_static(found)
        ratios.append([ratio(found[LEARNED], found[other]) for other in (best, "2048", ORACLE)])
        ratios[-1].append(ratio(found[IN_ORDER], found[best]))
        cells = [f"{mean_rate(found[engine]):.2f}" for engine in ENGINES]
        cells.append(f"{max(f['at_capacity']['tbt_p99_ms'] for f in found[LEARNED]):.1f}")
        rows.append(f"| {case} | " + " | ".join([*cells, *map(shown, ratios[-1])]) + " |")
    columns = ([value for value in column if value] for column in zip(*ratios, strict=True))
    cells = [""] * (len(ENGINES) + 1) + [f"{geometric_mean(column):.3f}" for column in columns]
    return "\n".join([*rows, f"| geometric mean | {' | '.join(cells)} |"])


def rates(found: list[Figures]) -> dict[int, float]:
    """Capacity at each seed."""
    return {figures["seed"]: figures["capacity_rps"] for figures in found}


def mean_rate(found: list[Figures]) -> float:
    """Capacity, mean over seeds."""
    return fmean(rates(found).values())


def best_static(found: dict[str, list[Figures]]) -> str:
    """The static budget of stock vLLM with the highest capacity in a case."""
    return max(STATIC_BUDGETS, key=lambda budget: mean_rate(found[budget]))


def ratio(ours: list[Figures], theirs: list[Figures]) -> float | None:
    """Our capacity to theirs, over the seeds that both have; None where theirs is none."""
    mine, other = rates(ours), rates(theirs)
    both = mine.keys() & other.keys()
    total = sum(other[seed] for seed in both)
    return sum(mine[seed] for seed in both) / total if total else None


def shown(value: float | None) -> str:
    """A ratio in a cell."""
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--requests", type=int, default=250, metavar="N", help="at least")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="at least")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "capacity.json")
    arguments = parser.parse_args()
    searches = [
        Search(
            engine,
            deployment,
            Steady(workload, arguments.requests, arguments.seconds),
            tbt_ms,
            seed,
        )
        for seed, deployment, workload, tbt_ms, engine in product(
            range(arguments.seeds), DEPLOYMENTS, WORKLOADS, OBJECTIVES_MS, ENGINES
        )
        if engine in arguments.engines
    ]
    runs = Runs(arguments.output, [search.key for search in searches], arguments.resume)
    for seed in range(arguments.seeds):
        started = [one.starting_from(runs.figures) for one in searches if one.seed == seed]
        runs.measure(Search.run, started, arguments.jobs, f"seed {seed}")
    runs.write_table(table(runs.by_case()))


if __name__ == "__main__":
    main()
