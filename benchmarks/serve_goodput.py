"""Goodput of a real server, as `vllm bench serve` counts it: ours and stock tuned by hand.

Servers with stock vLLM and several hand-tuned limits, and one with our scheduler and the
objectives, run side by side with the same flags otherwise. First a ladder of rates finds the
highest one at which the best stock server keeps 90% of its requests in time: the load 1x. Then
every server gets each multiple of it, one server after the other, so that whatever else the
machine does affects them all. The objectives come from what the machine measures at the start:
a prompt of mean length alone, and a decode-only step.
"""

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from demo import COMMON, ENVIRONMENT, RESULTS, console, start, without_common_labels
from support.bench_client import (
    as_json,
    bench,
    goodput_flags,
    share_in_time,
    trace_flags,
    write_trace,
)
from support.goodput_runs import markdown
from support.model import DEFAULT_MODEL
from support.provenance import provenance
from support.server import Server, memory_share

from vllm_sarathi.latency import Objectives, percentile
from vllm_sarathi.simulator import LENGTHS, Lengths
from vllm_sarathi.simulator.load.workload import Ints

OURS = "sarathi"
SETTINGS = ("2048/256", "2048/8", "2048/4", "128/6")
MULTIPLES = (1.0, 1.5, 2.0)
HELD = 0.9
RUNG, RUNGS_BELOW = 1.15, 8
RUNGS = tuple(0.5 * RUNG**rung for rung in range(7))
DECODES, DECODE_TOKENS, SHORT_PROMPT = 8, 24, 16
SEARCH_SEED = 1000
LEAST_OUTPUT = 8  # the shortest output of the ShareGPT-like lengths
EAGER = ("--enforce-eager",)  # compiling for each token budget takes minutes
SHARE, FIRST, LATER = "in time", "first tokens in time", "later tokens in time"


def stock_flags(setting: str) -> tuple[str, ...]:
    """Flags of "budget/max_num_seqs"."""
    budget, max_num_seqs = setting.split("/")
    return ("--max-num-batched-tokens", budget, "--max-num-seqs", max_num_seqs)


def our_flags(objectives: Objectives) -> tuple[str, ...]:
    """Flags of our server: vLLM's default limits, and the objectives."""
    asked = {"ttft": objectives.ttft_s, "tpot": objectives.tpot_s}
    slos = [
        (f"--sarathi-{name}-slo-ms", f"{1e3 * (value or 0):g}") for name, value in asked.items()
    ]
    return (*stock_flags(SETTINGS[0]), "--scheduler", OURS, *(word for slo in slos for word in slo))


def requests(lengths: str, scale: float, num: int, seed: int) -> Lengths:
    """Requests of a load by name, so many times shorter.

    Outputs keep ``LEAST_OUTPUT`` tokens: the time per token of two is a single gap, which one
    prompt beside it decides.
    """
    drawn = LENGTHS[lengths].draw(num, np.random.default_rng(seed))
    output = np.maximum(LEAST_OUTPUT, shorter(drawn.num_output, scale))
    return Lengths(shorter(drawn.num_prompt, scale), output)


def shorter(tokens: Ints, scale: float) -> Ints:
    """Token counts divided."""
    return np.asarray(np.maximum(1, np.rint(tokens / scale)), np.int64)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine measured at the start.

    Attributes:
        prefill_s: median time to the first token of a prompt of mean length, alone.
        step_s: median decode-only step of ``DECODES`` requests.
        mean_prompt: that mean, in tokens.
        mean_output: mean output tokens of a request.
    """

    prefill_s: float
    step_s: float
    mean_prompt: float
    mean_output: float

    @property
    def rate(self) -> float:
        """Requests per second that would fill the machine with ``DECODES`` running."""
        return 1 / (self.prefill_s + self.mean_output * self.step_s / DECODES)

    def objectives(self, prefills: float, steps: float) -> Objectives:
        """So many such prefills for the first token, so many such steps for each later one."""
        return Objectives(
            ttft_s=round(prefills * self.prefill_s, 2), tpot_s=round(steps * self.step_s, 3)
        )


@dataclass(slots=True)
class Bench:
    """Servers, the load that they get, and what came of it.

    Attributes:
        model: the served model.
        lengths: name of the requests' lengths.
        scale: how many times shorter they are.
        num_prompts: requests of a run.
        limit_s: longest time of a run, in seconds.
        folder: where the client's input goes.
        output: the file of results.
        raw: what it says of the whole.
        servers: by name; those with stock vLLM are named by their settings.
        objectives: of every request.
        runs: results so far.
    """

    model: str
    lengths: str
    scale: float
    num_prompts: int
    limit_s: float
    folder: Path
    output: Path
    raw: dict[str, Any]
    servers: dict[str, Server] = field(default_factory=dict)
    objectives: Objectives = field(default_factory=Objectives)
    runs: list[dict[str, Any]] = field(default_factory=list)

    def add_server(self, stack: ExitStack, name: str, flags: Sequence[str], num: int) -> None:
        """Start one of so many servers."""
        all_flags = (*COMMON, *EAGER, *memory_share(num), *flags)
        server = self.servers[name] = start(stack, self.model, all_flags)
        self.raw.setdefault("servers", {})[name] = shlex.join(server.command)

    def measure(self, name: str) -> Facts:
        """Measure the machine with one of the servers."""
        drawn = requests(self.lengths, self.scale, 1000, SEARCH_SEED)
        mean_prompt = float(drawn.num_prompt.mean())
        mean_output = float(drawn.num_output.mean())
        alone = self._random(name, round(mean_prompt), 2, 8, "--max-concurrency", "1")
        decodes = self._random(name, SHORT_PROMPT, DECODE_TOKENS, DECODES)
        prefill_s, step_s = alone["median_ttft_ms"] / 1e3, decodes["median_itl_ms"] / 1e3
        return Facts(prefill_s, step_s, mean_prompt, mean_output)

    def _random(
        self, name: str, num_prompt: int, num_output: int, num: int, *flags: str
    ) -> dict[str, Any]:
        """What the client saves of equal requests."""
        lengths = ("--random-input-len", str(num_prompt), "--random-output-len", str(num_output))
        load = ("--dataset-name", "random", "--num-prompts", str(num), *lengths, *flags)
        return bench(self.servers[name], self.model, load, self.limit_s)

    def run(self, name: str, rate: float, seed: int, load: str) -> float:
        """Give a server a load, keep the result; return the share of requests in time."""
        trace = self.folder / f"seed-{seed}.jsonl"
        if not trace.exists():
            write_trace(requests(self.lengths, self.scale, self.num_prompts, seed), trace)
        flags = (
            *trace_flags(trace, self.num_prompts, rate, seed),
            *goodput_flags(self.objectives),
        )
        result = bench(self.servers[name], self.model, flags, self.limit_s)
        of_run = figures(result, self.objectives)
        found = {
            "server": name,
            "load": load,
            "rate": rate,
            "seed": seed,
            "command": shlex.join(result["command"]),
            "figures": of_run,
            "raw": as_json(result),
        }
        self.runs.append(found)
        share = of_run[SHARE] or 0.0
        console.print(f"{load}, {rate:.2f}/s, seed {seed}, {name}: {share:.0%} in time")
        self.save()
        return share

    def save(self) -> None:
        """Write what there is."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.output.write_text(json.dumps(self.raw | {"runs": self.runs}))


def figures(result: dict[str, Any], objectives: Objectives) -> dict[str, float | None]:
    """A run's figures; shares are of the requests offered, those that failed among them."""
    columns = ("ttfts", "latencies", "output_lens", "errors")
    served = [
        (ttft_s, (e2e_s - ttft_s) / max(1, num_output - 1))
        for ttft_s, e2e_s, num_output, error in zip(*(result[c] for c in columns), strict=True)
        if not error
    ]
    ttfts_s, tpots_s = [ttft_s for ttft_s, _ in served], [tpot_s for _, tpot_s in served]
    offered = result["num_prompts"]
    limits = {FIRST: (ttfts_s, objectives.ttft_s), LATER: (tpots_s, objectives.tpot_s)}
    return {
        SHARE: share_in_time(result),
        **{
            name: sum(limit is None or value <= limit for value in values) / offered
            for name, (values, limit) in limits.items()
        },
        "TTFT p50, ms": percentile([1e3 * of for of in ttfts_s], 50),
        "TTFT p99, ms": percentile([1e3 * of for of in ttfts_s], 99),
        "TPOT p50, ms": percentile([1e3 * of for of in tpots_s], 50),
        "TPOT p99, ms": percentile([1e3 * of for of in tpots_s], 99),
        "output tokens/s": result["output_throughput"],
    }


def highest_held(
    rates: Sequence[float], settings: Sequence[str], share: Callable[[str, float], float]
) -> float:
    """The highest rate at which a setting has 90% in time, by bisection of a ladder.

    Those that held a rate are asked first at the next one, and one that holds it is enough. A
    ladder whose highest rate is held, or whose lowest is not, gets longer.

    Args:
        rates: the ladder.
        settings: of stock vLLM.
        share: gives the share in time of a setting at a rate.

    Raises:
        ValueError: none holds a third of the lowest rate.
    """
    ladder, order = sorted(rates), list(settings)

    def holds(rate: float) -> bool:
        holder = next((name for name in order if share(name, rate) >= HELD), None)
        if holder is not None:
            order.remove(holder)
            order.insert(0, holder)
        return holder is not None

    held, missed = -1, len(ladder)
    while missed - held > 1:
        middle = (held + missed) // 2
        if holds(ladder[middle]):
            held = middle
        else:
            missed = middle
        if held == len(ladder) - 1:
            ladder.append(RUNG * ladder[-1])
            missed = len(ladder)
    if held >= 0:
        return ladder[held]
    for rung in range(1, RUNGS_BELOW + 1):
        if holds(rate := ladder[0] / RUNG**rung):
            return rate
    raise ValueError(
        f"no stock setting has {HELD:.0%} in time at {rate:.2f} requests/s: "
        "lower --rates, or longer objectives"
    )


def schedule(
    names: Sequence[str], multiples: Sequence[float], seeds: int
) -> Iterator[tuple[int, float, str]]:
    """Seed, load and server of each run: the servers take turns, and in beginning, too."""
    turn = 0
    for seed in range(seeds):
        for multiple in multiples:
            first = turn % len(names)
            yield from ((seed, multiple, name) for name in (*names[first:], *names[:first]))
            turn += 1


Found = dict[str, dict[str, list[dict[str, Any]]]]


def by_load(runs: Sequence[dict[str, Any]]) -> Found:
    """Figures of all seeds, by load and by server."""
    found: Found = {}
    for run in sorted(runs, key=lambda run: (run["rate"], run["seed"])):
        loaded = f"{run['load']} ({run['rate']:.2f}/s)"
        found.setdefault(loaded, {}).setdefault(run["server"], []).append(run["figures"])
    return found


def mean(of_server: Sequence[dict[str, Any]], name: str) -> float:
    """Mean of a figure over the seeds; of those that have it."""
    values = [figures[name] for figures in of_server if figures[name] is not None]
    return fmean(values) if values else float("nan")


def best_stock(servers: dict[str, list[dict[str, Any]]]) -> str:
    """The setting of stock vLLM with the highest share in time at a load."""
    return max((name for name in servers if name != OURS), key=lambda n: mean(servers[n], SHARE))


def ratio(ours: float, theirs: float) -> float:
    """Ours to theirs, also where theirs is 0."""
    return ours / theirs if theirs else float("inf") if ours else 1.0


def goodput_table(found: Found) -> str:
    """Markdown: share in time of each server at each load, and ours to the best stock server."""
    names = list(dict.fromkeys(name for servers in found.values() for name in servers))
    stock = [name for name in names if name != OURS]
    head = ["load", *(f"stock {name}" for name in stock), OURS, "to the best stock"]
    rows = []
    for load, servers in found.items():
        best, ours = best_stock(servers), servers[OURS]
        shares = [
            f"**{cell}**" if name == best else cell
            for name in stock
            for cell in [f"{mean(servers[name], SHARE):.1%}"]
        ]
        pairs = [ratio(a[SHARE], b[SHARE]) for a, b in zip(ours, servers[best], strict=True)]
        whole = ratio(mean(ours, SHARE), mean(servers[best], SHARE))
        compared = f"{whole:.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        rows.append([load, *shares, f"{mean(ours, SHARE):.1%}", compared])
    return markdown(head, rows)


def details_table(found: Found) -> str:
    """Markdown: what each server made of each load."""
    names = list(next(figures for s in found.values() for of in s.values() for figures in of))
    rows = [
        [
            load,
            server if server == OURS else f"stock {server}",
            *(f"{mean(of, n):{'.1%' if 'in time' in n else '.1f'}}" for n in names),
        ]
        for load, servers in found.items()
        for server, of in servers.items()
    ]
    return markdown(["load", "server", *names], rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL)
    add("--lengths", choices=LENGTHS, default="sharegpt")
    add("--scale", type=float, default=32.0, metavar="N", help="requests are N times shorter")
    add(
        "--settings",
        nargs="+",
        default=SETTINGS,
        metavar="BUDGET/MAX_NUM_SEQS",
        help="of stock vLLM",
    )
    add("--rates", type=float, nargs="+", metavar="R", help="the ladder, in requests/s")
    add("--multiples", type=float, nargs="+", default=MULTIPLES, metavar="N")
    add("--seeds", type=int, default=2, metavar="N")
    add("--num-prompts", type=int, default=80, metavar="N", help="requests of a run")
    add("--ttft-prefills", type=float, default=8.0, metavar="N", help="mean prefills in TTFT")
    add("--tpot-steps", type=float, default=3.0, metavar="N", help="decode-only steps in TPOT")
    add("--ttft-slo-ms", type=float, metavar="MS", help="instead of what was measured")
    add("--tpot-slo-ms", type=float, metavar="MS", help="instead of what was measured")
    add("--run-limit", type=float, default=300.0, metavar="S", help="longest time of a run")
    add("--output", type=Path, default=RESULTS / "serve_goodput.json", metavar="FILE")
    return parser.parse_args()


def chosen_objectives(arguments: argparse.Namespace, facts: Facts) -> Objectives:
    """Those asked for, and for the rest those of the machine."""
    chosen = facts.objectives(arguments.ttft_prefills, arguments.tpot_steps)
    if arguments.ttft_slo_ms:
        chosen = replace(chosen, ttft_s=arguments.ttft_slo_ms / 1e3)
    if arguments.tpot_slo_ms:
        chosen = replace(chosen, tpot_s=arguments.tpot_slo_ms / 1e3)
    return chosen


def measure_all(of: Bench, arguments: argparse.Namespace, stack: ExitStack) -> None:
    """Start the servers, choose the objectives, find the load and run all servers at it."""
    settings = list(arguments.settings)
    for setting in settings:
        of.add_server(stack, setting, stock_flags(setting), len(settings) + 1)
    facts = of.measure(settings[0])
    of.objectives = chosen_objectives(arguments, facts)
    of.raw |= {"facts": asdict(facts), "objectives": asdict(of.objectives)}
    console.print(facts, of.objectives)
    of.add_server(stack, OURS, our_flags(of.objectives), len(settings) + 1)
    rates = arguments.rates or [rung * facts.rate for rung in RUNGS]
    of.run(OURS, median(rates), SEARCH_SEED, "warm-up")  # it learns the times of steps
    held = highest_held(
        rates, settings, lambda name, rate: of.run(name, rate, SEARCH_SEED, "search")
    )
    of.raw["held_rate"] = held
    for seed, multiple, name in schedule([*settings, OURS], arguments.multiples, arguments.seeds):
        of.run(name, multiple * held, seed, f"{multiple:g}x")
    of.raw["metrics"] = [
        without_common_labels(sample) for sample in of.servers[OURS].scrape("vllm_sarathi:")
    ]
    of.save()


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # the servers end, too
    environment = ENVIRONMENT | {"PYTHONHASHSEED": "0"}  # prompts of a trace hang on it
    os.environ.update(environment)
    raw = provenance(model=Path(arguments.model).name, environment=environment)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="serve-goodput-"))
        of = Bench(
            arguments.model,
            arguments.lengths,
            arguments.scale,
            arguments.num_prompts,
            arguments.run_limit,
            Path(folder),
            arguments.output,
            raw,
        )
        measure_all(of, arguments, stack)
    found = by_load([run for run in of.runs if run["load"] not in ("warm-up", "search")])
    asked = " ".join(goodput_flags(of.objectives)[1:])
    table = f"Objectives in ms: {asked}\n\n{goodput_table(found)}\n\n{details_table(found)}"
    arguments.output.with_suffix(".md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
