"""Ours beside published policies and stock vLLM's settings, in virtual time.

Goodput is the share of offered requests that meet TTFT 2 s and TPOT 50 ms, at multiples of the
rate at which ours holds 90% (70% of the agentic load, where a miss of the prefix cache alone takes
longer than that). All engines of a load get the same requests. ``--parts`` chooses; ``--resume``
keeps what was run.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import product, starmap
from pathlib import Path
from typing import Any

from support.goodput_plot import draw
from support.goodput_rivals import ADMISSION, AGEING, BUDGET, PAUSES, RELEGATION, without
from support.goodput_runs import OURS_BUDGET, Bench, Run, Search, markdown, mean
from support.provenance import foot
from support.rivals_cases import (
    BEST_STATIC,
    LOADS,
    OBJECTIVES,
    TOLD,
    Load,
    by_priority,
    observed,
    of_ours,
    rivals,
    statics,
    stock,
)
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import CapacityGoal, EngineSettings
from vllm_sarathi.simulator.results.comparison import default_num_jobs

RESULTS = Path(__file__).parent / "results"
MULTIPLES = (0.5, 1.0, 1.5, 2.0)
ABLATED = LOADS[1:5]
NUM_FINALISTS = 2


def capacity(bench: Bench, load: Load) -> float:
    """The rate at which ours holds the load's share. One seed."""
    goal = CapacityGoal(goodput=load.held, objectives=OBJECTIVES)
    run = load.run("search", of_ours(load), load.rate, f"{load.held:.0%} met")
    (found,) = bench.figures([Search(run, goal, precision=0.05)])
    return float(found["capacity_rps"])


def finalists(bench: Bench, load: Load, rate: float) -> list[EngineSettings]:
    """The static settings with the highest goodput at a rate, and 1.5 times of it. One seed."""
    best, tried = dict[str, EngineSettings](), statics(load)
    for faster in (rate, 1.5 * rate):
        runs = [load.run("sweep", engine, faster, f"{faster:.2f}/s") for engine in tried]
        goodput = [figures["goodput"] for figures in bench.figures(runs)]
        order = sorted(range(len(tried)), key=goodput.__getitem__, reverse=True)
        best |= {tried[i].name: tried[i] for i in order[:NUM_FINALISTS]}
    return list(best.values())


def compare(bench: Bench, loads: Sequence[Load]) -> str:
    """Goodput (its range over seeds), and the 99th percentile of gaps between tokens, by rate."""
    return "\n\n".join(f"#### {load.name}\n\n{compared(bench, load)}" for load in loads)


def compared(bench: Bench, load: Load) -> str:
    """The table of a load: an engine a row, a rate a column."""
    held = capacity(bench, load)
    rates = {f"{multiple:g}x ({multiple * held:.2f}/s)": multiple * held for multiple in MULTIPLES}
    best_static = finalists(bench, load, held)
    first = best_static[0]
    engines = [stock(load), by_priority(first), *rivals(load, first), of_ours(load)]

    def run(engine: EngineSettings, loaded: str) -> Run:
        return load.run("compare", engine, rates[loaded], loaded)

    def found(engine: EngineSettings, loaded: str) -> list[Figures]:
        return bench.over_seeds(run(engine, loaded))

    bench.run_all(starmap(run, product([*best_static, *engines], rates)))
    best = []
    for loaded in rates:
        of = [found(engine, loaded) for engine in best_static]
        winner = max(range(len(of)), key=lambda i: mean(of[i], "goodput"))
        best.append(f"{cell(of[winner])} [{best_static[winner].name}]")
    rows = [[BEST_STATIC, *best]]
    rows += [
        [engine.name, *(cell(found(engine, loaded)) for loaded in rates)] for engine in engines
    ]
    return markdown(["engine", *rates], rows)


def cell(found: Sequence[Figures]) -> str:
    """Mean goodput, with its range where there are several seeds; mean P99 gap."""
    goodput = [figures["goodput"] for figures in found]
    over = f" ({min(goodput):.3f} to {max(goodput):.3f})" if len(goodput) > 1 else ""
    return f"{mean(found, 'goodput'):.3f}{over}, {mean(found, 'tbt_p99_ms'):.0f} ms"


def unchanged(bench: Bench, loads: Sequence[Load]) -> str:
    """Stock vLLM, and the same under our preset "observe": whether every batch was equal."""
    rows = []
    for load in loads:
        rate = capacity(bench, load)
        engines = stock(load), observed(load)
        runs = [load.run("observed", engine, rate, f"{rate:.2f}/s") for engine in engines]
        theirs, mine = (bench.over_seeds(run) for run in runs)
        same = ("times_sha256", "tokens", "steps")
        equal = [
            all(a[name] == b[name] for name in same) for a, b in zip(theirs, mine, strict=True)
        ]
        rows.append(
            [load.name, str(sum(f["steps"] for f in theirs)), f"{sum(equal)} of {len(equal)}"]
        )
    return markdown(["load", "steps", "runs with equal batches"], rows)


ABLATIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "all": ((), {}),
    "no tiles, and so no pauses": ((), {"tile_size": None}),
    "no decode pauses": ((PAUSES,), {}),
    "order fcfs": ((), {"order": "fcfs"}),
    "order edf": ((), {"order": "edf"}),
    "order srpf": ((), {"order": "srpf"}),
    "no relegation": ((RELEGATION,), {}),
    "no ageing": ((AGEING,), {}),
    "no admission by pace": ((ADMISSION,), {}),
    "a fixed budget of 512": ((BUDGET,), {}),
    "max_stall 100 ms (default 500)": ((), {"max_stall_ms": 100.0}),
    "max_stall 2 s": ((), {"max_stall_ms": 2000.0}),
}


def ablation(bench: Bench, loads: Sequence[Load]) -> str:
    """Ours with one feature switched off or changed, at 1.5 times what it holds."""
    rows = [[label] for label in ABLATIONS]
    ablated = [load for load in loads if load in ABLATED]
    limits = {"max_num_batched_tokens": OURS_BUDGET}
    for load in ablated:
        rate = 1.5 * capacity(bench, load)
        engines = [
            load.limited(without(missing, {**TOLD, **settings}, label=label, **limits))
            for label, (missing, settings) in ABLATIONS.items()
        ]
        runs = [load.run("ablation", engine, rate, f"{rate:.2f}/s") for engine in engines]
        bench.run_all(runs)
        for row, run in zip(rows, runs, strict=True):
            row.append(cell(bench.over_seeds(run)))
    return markdown(["ours with", *(load.name for load in ablated)], rows)


PARTS: dict[str, Callable[[Bench, Sequence[Load]], str]] = {
    "compare": compare,
    "observed": unchanged,
    "ablation": ablation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--loads", nargs="+", default=[""], metavar="WORD", help="of their names")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "rivals.json")
    arguments = parser.parse_args()
    held = Runs(arguments.output, (), resume=True).figures
    asked = [] if arguments.resume else list(held)
    bench = Bench(Runs(arguments.output, asked, arguments.resume), arguments.jobs, arguments.seeds)
    loads = [load for load in LOADS if any(word in load.name for word in arguments.loads)]
    tables = []
    for part in arguments.parts:
        table = PARTS[part](bench, loads)
        name = (PARTS[part].__doc__ or part).removesuffix(".")
        tables.append(f"### {name}\n\n{table}")
    bench.runs.write_table("\n\n".join(tables))
    if "compare" in arguments.parts:
        found, path = bench.runs, arguments.output.with_suffix(".png")
        draw(found.figures, path, foot(found.provenance), "compare", num_columns=4)


if __name__ == "__main__":
    main()
