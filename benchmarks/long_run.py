"""What hours of simulated traffic cost: wall time and memory, one process for each run.

``python benchmarks/long_run.py --hours 1 10`` shows how memory grows with the requests.
"""

import argparse
import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from rich.progress import track
from support.runs import Runs, add_arguments

from vllm_sarathi.cli.engine_spec import parse_engine
from vllm_sarathi.simulator import LENGTHS, Synthetic, deployment, simulate

RESULTS = Path(__file__).parent / "results"
ENGINES = ("stock:2048", "sarathi:8192")
FIGURES = ("requests", "steps", "wall_s", "steps_per_s", "peak_rss_mb")


@dataclass(frozen=True, slots=True)
class LongRun:
    """An engine and so many hours of a load at a mean rate, in requests per second."""

    engine: str
    deployment: str
    workload: str
    hours: float
    rate: float

    @property
    def key(self) -> str:
        """What tells its result from others."""
        load = f"{self.hours:g} h at {self.rate:g}/s"
        return f"{self.deployment}, {self.workload}, {self.engine}, {load}"

    def figures(self) -> dict[str, Any]:
        """Run it."""
        num_requests = round(self.hours * 3600 * self.rate)
        engine, machine = parse_engine(self.engine, {}), deployment(self.deployment)
        lengths = LENGTHS[self.workload]
        # The first run imports vLLM, whose time is not the traffic's.
        simulate(engine, machine, Synthetic(lengths, 1).at(self.rate, 0))
        report = simulate(engine, machine, Synthetic(lengths, num_requests).at(self.rate, 0))
        return {
            "requests": num_requests,
            "completed": report.completed,
            "virtual_s": report.duration_s,
            "steps": report.num_steps,
            "wall_s": report.wall_s,
            "steps_per_s": report.num_steps / report.wall_s,
            "peak_rss_mb": peak_rss_mb(),
        }


def peak_rss_mb() -> float:
    """Most memory that this process has held, in 10^6 bytes (Linux).

    Unlike ``getrusage``, it does not count what the process that started this one held.
    """
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024 / 1e6


def table(cases: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Markdown: the figures of each engine in each case."""
    rows = [
        "| case | engine | requests | steps | wall, s | steps/s | peak RSS, MB |",
        "|---" * (2 + len(FIGURES)) + "|",
    ]
    for case, by_engine in cases.items():
        for engine, (figures,) in by_engine.items():
            cells = [f"{figures[name]:.0f}" for name in FIGURES]
            rows.append(f"| {case} | {engine} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=ENGINES, metavar="ENGINE")
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 10.0], metavar="H")
    parser.add_argument("--rate", type=float, default=5.0, metavar="R", help="requests/s")
    parser.add_argument("--workload", choices=LENGTHS, default="sharegpt")
    parser.add_argument("--deployment", default="h100-llama-3-8b", metavar="NAME")
    add_arguments(parser, RESULTS / "long_run.json")
    options = parser.parse_args()
    asked = [
        LongRun(engine, options.deployment, options.workload, hours, options.rate)
        for hours, engine in product(options.hours, options.engines)
    ]
    runs = Runs(options.output, [run.key for run in asked], options.resume)
    todo = [run for run in asked if run.key not in runs.figures]
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        done = zip(todo, processes.map(LongRun.figures, todo), strict=True)
        for run, figures in track(done, total=len(todo)):
            runs.add(run.key, figures)
    runs.write_table(table(runs.by_case()))


if __name__ == "__main__":
    main()
