"""Mean time of whole requests in virtual time: the order "mlfq" beside the other orders.

Llama-3-8B on A100, lengths of a recorded conversation load, around the rate that ours holds
(``vllm-sarathi capacity sarathi:8192 --workload conversation``: 8.7 requests/s).
"""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
from support.goodput_runs import markdown
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import LENGTHS, EngineSettings, Synthetic, deployment, simulate
from vllm_sarathi.simulator.results.comparison import default_num_jobs

RESULTS = Path(__file__).parent / "results"
CAPACITY = 8.7
SHARES = (0.7, 0.9, 1.1)
BUDGET = 8192
PAUSING = "support.paused_levels.PausingScheduler"
ENGINES = {
    "stock 2048": EngineSettings(max_num_batched_tokens=2048),
    **{
        order: EngineSettings("sarathi", {"order": order}, BUDGET)
        for order in ("fcfs", "hybrid", "srpf", "mlfq")
    },
    "offline fcfs": EngineSettings("sarathi", {"preset": "offline", "order": "fcfs"}, BUDGET),
    "offline srpf": EngineSettings("sarathi", {"preset": "offline", "order": "srpf"}, BUDGET),
    "mlfq with pauses": EngineSettings(PAUSING, {"order": "mlfq"}, BUDGET),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """An engine at a share of the capacity."""

    engine: str
    share: float
    num_requests: int
    seed: int

    @property
    def key(self) -> str:
        """What tells its result from others."""
        load = f"{self.num_requests} requests"
        return f"{self.share:g} of capacity, {self.engine}, {load}, seed {self.seed}"

    def run(self) -> Figures:
        """Run it."""
        traffic = Synthetic(LENGTHS["conversation"], self.num_requests)
        workload = traffic.at(self.share * CAPACITY, self.seed)
        report = simulate(ENGINES[self.engine], deployment("a100-llama-3-8b"), workload)
        mean_s = float(np.mean(report.per_request.e2e_s))
        return {**report.summary(), "e2e_mean_s": mean_s}


def table(runs: Runs) -> str:
    """Markdown: mean and 99th percentile of a request's time, and of that to its first token."""
    head = ["load", "engine", "mean time, s", "to fcfs", "P99 time, s", "P99 TTFT, s"]
    rows = []
    for case, engines in runs.by_case().items():
        means = {name: mean(found, "e2e_mean_s") for name, found in engines.items()}
        for name, found in engines.items():
            ratio = f"{means[name] / means['fcfs']:.3f}" if "fcfs" in means else ""
            tails = [f"{mean(found, figure):.2f}" for figure in ("e2e_p99_s", "ttft_p99_s")]
            rows.append([case, name, f"{means[name]:.2f}", ratio, *tails])
    return markdown(head, rows)


def mean(found: list[Figures], figure: str) -> float:
    """Mean of a figure over seeds."""
    return fmean(figures[figure] for figures in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, metavar="N")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "job_completion.json")
    arguments = parser.parse_args()
    cells = [
        Cell(engine, share, arguments.requests, seed)
        for share, engine, seed in product(SHARES, ENGINES, range(arguments.seeds))
    ]
    runs = Runs(arguments.output, [cell.key for cell in cells], arguments.resume)
    runs.measure(Cell.run, cells, arguments.jobs)
    runs.write_table(table(runs))


if __name__ == "__main__":
    main()
