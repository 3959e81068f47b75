"""Offline batches in virtual time: the preset "offline" beside every static budget of stock vLLM.

Llama-3-8B on A100, all requests at time 0 in shuffled order. Those that share prefixes have one
of a hundred, and the KV cache has room for ten of them besides what runs. The others have as
many tokens, none of them shared. "sorted by hand" is stock vLLM, given the requests of a prefix
one after the other, as a caller may who knows the prefixes.
"""

import argparse
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from support.goodput_runs import markdown
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import (
    EngineSettings,
    Lengths,
    Quantiles,
    Workload,
    deployment,
    simulate,
)
from vllm_sarathi.simulator.results.comparison import default_num_jobs

RESULTS = Path(__file__).parent / "results"
NUM_PREFIXES, PREFIX_TOKENS = 100, 1024
OWN, OUTPUT = Quantiles(((0, 64), (1, 256))), Quantiles(((0, 16), (1, 256)))
KV_TOKENS = {"KV for 10 prefixes": 30_720, "KV for 80 prefixes": 102_400}
"""20,480 tokens of them are for what runs besides."""
LOADS = ("shared prefixes", "nothing shared")
STATIC_BUDGETS = (128, 256, 512, 1024, 2048, 4096, 8192)
SORTED, OURS = " sorted by hand", "offline"
ENGINES = (*map(str, STATIC_BUDGETS), f"512{SORTED}", f"2048{SORTED}", "offline fcfs", OURS)


@dataclass(frozen=True, slots=True)
class Cell:
    """An engine with a load."""

    engine: str
    load: str
    room: str
    num_requests: int
    seed: int

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return f"{self.room}, {self.engine}, {self.load}, seed {self.seed}"

    def settings(self) -> EngineSettings:
        """How the engine is set up."""
        if self.engine == OURS:
            return EngineSettings("sarathi", {"preset": "offline"}, 8192)
        if self.engine == "offline fcfs":
            return EngineSettings("sarathi", {"preset": "offline", "order": "fcfs"}, 8192)
        return EngineSettings(max_num_batched_tokens=int(self.engine.removesuffix(SORTED)))

    def workload(self) -> Workload:
        """All requests at time 0."""
        random, num = np.random.default_rng(self.seed), self.num_requests
        prefix = random.permutation(np.arange(num) % NUM_PREFIXES)
        own, output = OWN.draw(num, random), OUTPUT.draw(num, random)
        if self.engine.endswith(SORTED):
            prefix = np.sort(prefix)
        num_shared = np.full(num, PREFIX_TOKENS if self.load == LOADS[0] else 0)
        lengths = Lengths(own + PREFIX_TOKENS, output, num_shared, prefix)
        return Workload(self.load, np.zeros(num), lengths)

    def run(self) -> Figures:
        """Run it."""
        workload = self.workload()
        machine = replace(deployment("a100-llama-3-8b"), num_kv_tokens=KV_TOKENS[self.room])
        report = simulate(self.settings(), machine, workload)
        lengths, num = workload.lengths, len(workload)
        num_prompt = int(lengths.num_prompt.sum())
        num_computed = report.num_tokens - (int(lengths.num_output.sum()) - num)
        shared = PREFIX_TOKENS * (num - NUM_PREFIXES) if self.load == LOADS[0] else 0
        return {
            **report.summary(),
            "hit_share": 1 - num_computed / num_prompt,
            "ideal_hit_share": shared / num_prompt,
        }


def table(runs: Runs) -> str:
    """Markdown: output tokens per second, beside the best static budget, and prefix hits."""
    head = ["load", "engine", "output tokens/s", "to best static", "prefix hits", "ideal"]
    rows = []
    for case, engines in runs.by_case().items():
        rates = {name: found[0]["output_tokens_per_s"] for name, found in engines.items()}
        best = max(rates[name] for name in map(str, STATIC_BUDGETS) if name in rates)
        for name, (figures, *_) in engines.items():
            cells = [case, name if name.startswith(OURS) else f"stock {name}", f"{rates[name]:.0f}"]
            shares = [f"{figures[share]:.1%}" for share in ("hit_share", "ideal_hit_share")]
            rows.append([*cells, f"{rates[name] / best:.3f}", *shares])
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "offline.json")
    arguments = parser.parse_args()
    cells = [
        Cell(engine, load, room, arguments.requests, arguments.seed)
        for load, room, engine in product(LOADS, KV_TOKENS, ENGINES)
        if load == LOADS[0] or not engine.endswith(SORTED)
    ]
    runs = Runs(arguments.output, [cell.key for cell in cells], arguments.resume)
    runs.measure(Cell.run, cells, arguments.jobs)
    runs.write_table(table(runs))


if __name__ == "__main__":
    main()
