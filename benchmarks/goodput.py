"""Requests that meet their objectives, by load, in virtual time: ours, stock vLLM and others.

Joint goodput is the share of offered requests that finish and meet all their objectives.
"best static" is stock vLLM with the best of 40 settings at that load: budgets, most running
requests and ``long_prefill_token_threshold``. ``--parts`` chooses; ``--resume`` keeps what
was run.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from support.goodput_rivals import prototype
from support.goodput_runs import Bench, Run, Search, mean, ours, stock
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import (
    LENGTHS,
    CapacityGoal,
    EngineSettings,
    Objectives,
    Synthetic,
)
from vllm_sarathi.simulator.results.comparison import default_num_jobs

RESULTS = Path(__file__).parent / "results"
MULTIPLES = (0.7, 1.0, 1.5, 2.0, 3.0)
BUDGETS, SEATS, THRESHOLDS = (256, 512, 1024, 2048), (48, 64, 96, 128, 256), (0, 256)
STATICS = [stock(*setting) for setting in product(BUDGETS, SEATS, THRESHOLDS)]
STOCK_2048 = replace(stock(2048, 256, 0), label="stock 2048")
NOTHING_SET, OURS = "ours (nothing set)", "ours"
HELD = 0.9
NUM_FINALISTS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A load on a deployment and what it asks.

    Args:
        machine: name of the deployment.
        lengths: name of the requests' lengths.
        ttft_s: objective for the first token.
        tpot_s: objective for the mean time per later token.
        rate: about what a static budget holds, in requests per second.
        seconds: how long requests arrive.
    """

    machine: str
    lengths: str
    ttft_s: float
    tpot_s: float
    rate: float
    seconds: float

    @property
    def name(self) -> str:
        """What tables call it."""
        gpu = self.machine.split("-")[0].upper()
        return f"{gpu} {self.lengths} (TTFT {self.ttft_s:g} s, TPOT {self.tpot_s * 1e3:g} ms)"

    @property
    def objectives(self) -> Objectives:
        """Of every request."""
        return Objectives(ttft_s=self.ttft_s, tpot_s=self.tpot_s)

    @property
    def settings(self) -> dict[str, Any]:
        """Of our scheduler."""
        return {"ttft_slo_ms": self.ttft_s * 1e3, "tpot_slo_ms": self.tpot_s * 1e3}

    def run(self, part: str, engine: EngineSettings, rate: float, load: str, **more: Any) -> Run:
        """An engine at a rate."""
        traffic = Synthetic(LENGTHS[self.lengths], round(rate * self.seconds), **more)
        return Run(
            f"{part}: {self.name}", load, engine, self.machine, traffic, rate, self.objectives
        )


A100 = Case("a100-llama-3-8b", "sharegpt", 2.0, 0.050, 3.3, 120.0)
A100_CONVERSATION = Case("a100-llama-3-8b", "conversation", 2.0, 0.050, 6.0, 120.0)
H100 = Case("h100-llama-3-8b", "conversation", 2.0, 0.025, 22.0, 60.0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What stock vLLM holds in a case.

    Args:
        rate: the highest rate at which ``HELD`` of the requests meet their objectives.
        best: the static settings that hold it.
        finalists: those that are the best at that rate or at 1.5 times as much.
    """

    rate: float
    best: EngineSettings
    finalists: tuple[EngineSettings, ...]


def capacity(bench: Bench, case: Case) -> Capacity:
    """Find it: all settings at one rate, then the best of them at their own limits."""
    first = sweep(bench, case, case.rate)[:NUM_FINALISTS]
    goal = CapacityGoal(goodput=HELD, objectives=case.objectives)
    searches = [
        Search(case.run("search", engine, case.rate, f"{HELD:.0%} met"), goal) for engine in first
    ]
    found = [figures["capacity_rps"] for figures in bench.figures(searches)]
    rate = max(found)
    beyond = sweep(bench, case, 1.5 * rate)[:NUM_FINALISTS]
    finalists = {engine.name: engine for engine in (*first, *beyond)}
    return Capacity(rate, first[found.index(rate)], tuple(finalists.values()))


def sweep(bench: Bench, case: Case, rate: float) -> list[EngineSettings]:
    """All static settings at a rate, the best first. One seed."""
    runs = [case.run("sweep", engine, rate, f"{rate:.2f}/s") for engine in STATICS]
    goodput = [figures["goodput"] for figures in bench.figures(runs)]
    order = sorted(range(len(STATICS)), key=goodput.__getitem__, reverse=True)
    return [STATICS[index] for index in order]


def load(bench: Bench) -> str:
    """Goodput at 0.7 to 3 times what the best static settings hold."""
    rows = []
    for case in (A100, H100):
        held = capacity(bench, case)
        engines = (
            *held.finalists,
            STOCK_2048,
            prototype(case.ttft_s),
            ours(NOTHING_SET),
            ours(OURS, **case.settings),
        )
        for multiple in MULTIPLES:
            rate = multiple * held.rate
            loaded = f"{multiple:g}x ({rate:.2f}/s)"
            found = {
                engine.name: bench.over_seeds(case.run("load", engine, rate, loaded))
                for engine in engines
            }
            best = max(held.finalists, key=lambda e: mean(found[e.name], "goodput") or 0.0).name
            columns = [best, *list(found)[len(held.finalists) :]]
            cells = [goodput_cell(found[name]) for name in columns]
            ratio = (mean(found[OURS], "goodput") or 0.0) / (mean(found[best], "goodput") or 1.0)
            rows.append([case.name, loaded, best.removeprefix("stock "), *cells, f"{ratio:.2f}"])
    head = ["case", "load", "best static is", "best static", "stock 2048", "prototype"]
    return markdown([*head, NOTHING_SET, OURS, "ours to best static"], rows)


def goodput_cell(found: list[Figures]) -> str:
    """Share of requests, and how many a second."""
    return f"{mean(found, 'goodput'):.3f} = {mean(found, 'goodput_rps'):.2f}/s"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PARTS: dict[str, Callable[[Bench], str]] = {"load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "goodput.json")
    arguments = parser.parse_args()
    held = Runs(arguments.output, (), resume=True).figures
    others = set(PARTS) - set(arguments.parts)
    asked = [key for key in held if key.split(":")[0] not in others]
    bench = Bench(Runs(arguments.output, asked, arguments.resume), arguments.jobs, arguments.seeds)
    tables = [f"### {PARTS[part].__doc__}\n\n{PARTS[part](bench)}" for part in arguments.parts]
    bench.runs.write_table("\n\n".join(tables))


if __name__ == "__main__":
    main()
