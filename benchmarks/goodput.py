"""Requests that meet their objectives, by load, in virtual time: ours, stock vLLM and others.

Joint goodput is the share of offered requests that finish and meet all their objectives.
"Best static" is stock vLLM with the best of 40 settings at that load: budgets, most running
requests and ``long_prefill_token_threshold``. ``--parts`` chooses; ``--resume`` keeps what
was run. The part "mix" needs ``--traces``.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from math import inf
from pathlib import Path
from typing import Any

import capacity as strict_capacity
import numpy as np
from support.goodput_cases import (
    A100,
    A100_CONVERSATION,
    A100_DECODES,
    H100,
    STOCK_2048,
    Mixed,
    Overload,
    ShortAndLong,
    capacity,
    sweep,
)
from support.goodput_plot import draw
from support.goodput_rivals import ADMISSION, BUDGET, RELEGATION, prototype, without
from support.goodput_runs import OURS_BUDGET, Bench, Run, Search, markdown, mean, ours, stock
from support.provenance import foot
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.config import CLIENT_FIELDS
from vllm_sarathi.simulator import (
    LENGTHS,
    CapacityGoal,
    LongAmongShort,
    Objectives,
    QosClass,
    Replay,
    Report,
    read_trace,
)
from vllm_sarathi.simulator.results.comparison import default_num_jobs, interval

RESULTS = Path(__file__).parent / "results"
NOTHING_SET, OURS, BEST_STATIC = "ours (nothing set)", "ours", "best static"
MULTIPLES = (0.7, 1.0, 1.5, 2.0, 3.0)


def load(bench: Bench) -> str:
    """Goodput by offered rate, in multiples of what the best static settings hold at 90%."""
    rows = []
    for case in (A100, H100):
        held = capacity(bench, case)
        beyond = sweep(bench, case, 1.5 * held.rate)
        statics = list({engine.name: engine for engine in (*held.leaders, *beyond)}.values())
        others = [
            STOCK_2048,
            prototype(case.ttft_s),
            ours(NOTHING_SET),
            ours(OURS, **case.settings),
        ]
        rates = {f"{m:g}x ({m * held.rate:.2f}/s)": m * held.rate for m in MULTIPLES}
        runs = {
            loaded: [case.run("load", engine, rate, loaded) for engine in (*statics, *others)]
            for loaded, rate in rates.items()
        }
        bench.run_all(chain.from_iterable(runs.values()))
        for loaded in rates:
            found = [bench.over_seeds(run) for run in runs[loaded]]
            best = max(range(len(statics)), key=lambda i: mean(found[i], "goodput"))
            shown = [found[best], *found[len(statics) :]]
            ratio = mean(shown[-1], "goodput") / mean(shown[0], "goodput")
            cells = [statics[best].name, *map(goodput_cell, shown), f"{ratio:.2f}"]
            rows.append([case.name, loaded, *cells])
    head = ["case", "load", "best static is", BEST_STATIC, *(engine.name for engine in others)]
    return markdown([*head, "ours to best static"], rows)


def goodput_cell(found: list[Figures]) -> str:
    """Share of requests with its 95% interval, and how many a second."""
    share = interval([figures["goodput"] for figures in found])
    return f"{share} = {mean(found, 'goodput_rps'):.2f}/s"


ABLATIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "all parts": ((), {}),
    "no admission": ((ADMISSION,), {}),
    "no relegation": ((RELEGATION,), {}),
    "no budget (512)": ((BUDGET,), {}),
    "order by deadline": ((), {"order": "edf"}),
    "order by length": ((), {"order": "srpf"}),
    "no order and relegation": ((), {"order": "fcfs"}),
    "order alone": ((RELEGATION, ADMISSION, BUDGET), {}),
    "order and relegation alone": ((ADMISSION, BUDGET), {}),
    "relegation alone": ((ADMISSION, BUDGET), {"order": "edf"}),  # with one TTFT as they came
    "admission alone": ((BUDGET,), {"order": "fcfs"}),
    "budget alone": ((ADMISSION,), {"order": "fcfs"}),
    "none": ((ADMISSION, BUDGET), {"order": "fcfs"}),
}


def ablation(bench: Bench) -> str:
    """Ours with parts switched off, at 1.5 times what the best static settings hold."""
    head, rows = ["ours with"], [[label] for label in ABLATIONS]
    for case in (A100, A100_DECODES):
        rate = 1.5 * capacity(bench, case).rate
        head.append(f"{case.name}, {rate:.2f}/s")
        limits = {"max_num_batched_tokens": OURS_BUDGET}
        engines = [
            without(missing, {**case.settings, **settings}, label=label, **limits)
            for label, (missing, settings) in ABLATIONS.items()
        ]
        runs = [case.run("ablation", engine, rate, f"1.5x ({rate:.2f}/s)") for engine in engines]
        bench.run_all(runs)
        for row, run in zip(rows, runs, strict=True):
            row.append(goodput_cell(bench.over_seeds(run)))
    return markdown(head, rows)


IMPORTANT, OTHERS = "important", "others"
OVERLOAD = Overload(600.0, 800.0)
NUM_LATE_KEPT = 30


def overload(bench: Bench) -> str:
    """Twice the rate for 600 s, then half of it: a fifth of the requests are important."""
    held = capacity(bench, A100)
    classes = [
        (QosClass(IMPORTANT, A100.objectives, -1, {"importance": 10}), 0.2),
        (QosClass(OTHERS, A100.objectives, 0), 0.8),
    ]
    traffic = OVERLOAD.traffic(LENGTHS[A100.lengths], held.rate, classes)
    bare = [(replace(qos, extra_args=None), share) for qos, share in classes]
    told = ours(OURS, **A100.settings, client_objectives=list(CLIENT_FIELDS))
    by_priority = replace(held.best, policy="priority", label=f"{held.best.name} by priority")
    engines = ((held.best, bare), (by_priority, bare), (told, classes))
    columns = {
        f"{IMPORTANT}: goodput": ".4f",
        f"{OTHERS}: goodput": ".3f",
        "important: first token late": ".1f",
        "important: later tokens late": ".1f",
        "lost": ".1f",
        "recovery_s": ".0f",
        f"{OTHERS}: ttft_p99_s": ".0f",
    }
    runs = [
        Run(
            f"overload: {A100.name}",
            f"2x ({2 * held.rate:.2f}/s)",
            engine,
            A100.machine,
            replace(traffic, classes=kinds),
            held.rate * OVERLOAD.mean,
            more=recovery,
        )
        for engine, kinds in engines
    ]
    bench.run_all(runs)
    rows = []
    for run in runs:
        found = bench.over_seeds(run)
        rows.append([run.engine.name, *(f"{mean(found, n):{form}}" for n, form in columns.items())])
    return markdown(["engine", *columns], rows)


def recovery(report: Report) -> Figures:
    """What overload left: who was lost, how long the queue lasted, which promises broke."""
    workload, rows = report.workload, report.per_request
    end_s = OVERLOAD.overload_s
    came_before = workload.arrival_s < end_s
    first_s = workload.arrival_s + rows.ttft_s
    important = workload.class_of == 0
    ttft_late = ~report.met(Objectives(ttft_s=A100.ttft_s)) & important
    tpot_late = ~report.met(Objectives(tpot_s=A100.tpot_s)) & important
    return {
        "lost": int((~np.isfinite(rows.e2e_s)).sum()),
        "recovery_s": float(np.nanmax(first_s[came_before]) - end_s),
        "important: first token late": int(ttft_late.sum()),
        "important: later tokens late": int((tpot_late & ~ttft_late).sum()),
        "important: late": [
            {
                "arrival_s": float(workload.arrival_s[i]),
                "prompt": int(workload.lengths.num_prompt[i]),
                "output": int(workload.lengths.num_output[i]),
                "delay_s": float(rows.scheduling_delay_s[i]),
                "ttft_s": float(rows.ttft_s[i]),
                "tpot_ms": 1e3 * float(rows.tpot_s[i]),
                "max_gap_ms": 1e3 * float(rows.max_gap_s[i]),
            }
            for i in np.flatnonzero(ttft_late | tpot_late)[:NUM_LATE_KEPT]
        ],
    }


def default(bench: Bench) -> str:
    """Nothing set, below capacity: ours to stock vLLM's best static settings."""
    names = ("ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "output_tokens_per_s", "tbt_p99_ms")
    rows = []
    for case in (A100, H100, A100_CONVERSATION):
        held = capacity(bench, case)
        for multiple in (0.5, 0.7, 0.9):
            rate = multiple * held.rate
            loaded = f"{multiple:g}x ({rate:.2f}/s)"
            theirs, mine = (
                bench.over_seeds(case.run("default", engine, rate, loaded))
                for engine in (held.best, ours(NOTHING_SET))
            )
            cells = [
                f"{mean(theirs, name):.3g} / {mean(mine, name):.3g} = "
                f"{mean(mine, name) / mean(theirs, name):.2f}"
                for name in names
            ]
            rows.append([case.name, loaded, held.best.name, *cells])
    return markdown(["case", "load", BEST_STATIC, *(f"{n}, stock / ours" for n in names)], rows)


STRICT_CASES = (
    "a100-llama-3-8b, sharegpt, 50 ms",
    "a100-llama-3-8b, conversation, 50 ms",
    "a100-llama-3-8b, arxiv, 100 ms",
    "h100-llama-3-8b, conversation, 50 ms",
)


@dataclass(frozen=True, slots=True)
class Strict:
    """A search of ``capacity.py``."""

    search: strict_capacity.Search

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return f"strict: {self.search.key}"

    def run(self) -> Figures:
        """Search."""
        return self.search.run()


def strict(bench: Bench) -> str:
    """Capacity with `tbt_slo_ms` alone: ours to the best static budget of `capacity.json`."""
    known = Runs(RESULTS / "capacity.json", (), resume=True).by_case()
    rows = []
    for case, found in known.items():
        name = case.rsplit(", ", 1)[0]
        if name not in STRICT_CASES:
            continue
        machine, lengths, objective = name.split(", ")
        best = strict_capacity.best_static(found)
        steady = strict_capacity.Steady(lengths, 250, 30.0)
        tasks = [
            Strict(
                strict_capacity.Search(
                    engine,
                    machine,
                    steady,
                    int(objective.removesuffix(" ms")),
                    0,
                    strict_capacity.mean_rate(found[best]),
                )
            )
            for engine in (best, strict_capacity.LEARNED)
        ]
        theirs, mine = (figures["capacity_rps"] for figures in bench.figures(tasks))
        rows.append([name, best, f"{theirs:.2f}", f"{mine:.2f}", f"{mine / theirs:.3f}"])
    head = ["case", "best static budget is", BEST_STATIC, OURS, "ours to best static"]
    return markdown(head, rows)


MIX_SCALES = (1.0, 0.1)
"""A run of some minutes can put off what is due in half an hour to after its end: the second mix
has a tenth of the times, so that a run is long beside them."""
MIX_STATICS = tuple(stock(budget, 256, 0) for budget in (256, 512, 1024))


def mix(bench: Bench, traces: list[Path], num_requests: int) -> str:
    """QoServe's mix on recorded loads: the rate at which 1% of requests miss an objective.

    A third each: first token in 6 s and 50 ms for each later one on average; last token in
    600 s; last token in 1800 s.
    """
    goal = CapacityGoal(scheduling_delay_s=inf, goodput=0.99)
    searches, rows = [], []
    for scale, path in product(MIX_SCALES, traces):
        kinds, classes = mixed(600.0 * scale, 1800.0 * scale)
        bare = [(replace(qos, extra_args=None), share) for qos, share in kinds]
        by_deadline = without(
            (ADMISSION, RELEGATION, BUDGET),
            {"order": "edf", "qos_classes": classes},
            max_num_batched_tokens=OURS_BUDGET,
            label="deadlines alone (512)",
        )
        trace = read_trace(path, num_requests)
        names = " + ".join(qos.name for qos, _ in kinds)
        for engine in (*MIX_STATICS, by_deadline, ours(OURS, qos_classes=classes)):
            traffic = Replay(trace, bare if engine.scheduler == "stock" else kinds)
            case, load = f"mix: {trace.name}: {names}", f"{len(trace)} requests"
            run = Run(case, load, engine, A100.machine, traffic, 5.0)
            searches.append(Search(run, goal, precision=0.05))
            rows.append([trace.name, names, engine.name])
    found = bench.figures(searches)
    for row, figures in zip(rows, found, strict=True):
        row.append(f"{figures['capacity_rps']:.2f}")
    return markdown(["trace", "classes", "engine", "requests/s at 1% missed"], rows)


def mixed(soon_s: float, later_s: float) -> tuple[list[tuple[QosClass, float]], dict[str, Any]]:
    """Requests that chat and those whose last token is due, and their classes as settings."""
    kinds = [(QosClass("chat", Objectives(ttft_s=6.0, tpot_s=0.05), 0, {"qos": "chat"}), 1.0)]
    classes = {"chat": {"ttft_slo_ms": 6000.0, "tpot_slo_ms": 50.0}}
    for name, e2e_s in (("soon", soon_s), ("later", later_s)):
        kinds.append((QosClass(f"{e2e_s:g} s", Objectives(e2e_s=e2e_s), 0, {"qos": name}), 1.0))
        classes[name] = {"e2e_slo_ms": e2e_s * 1e3}
    return kinds, classes


CHATS = LENGTHS["conversation"]
LONG_LOADS = {
    "agentic turns among chats": (ShortAndLong(Mixed(CHATS, LENGTHS["agentic"], 0.2), 200.0), 2.0),
    "one prompt of 100K among chats": (ShortAndLong(LongAmongShort(every=240), 120.0), 2.0),
}
LONG_FIGURES = (
    "short: ttft_p50_s",
    "short: ttft_p99_s",
    "long: ttft_p50_s",
    "long: e2e_p50_s",
    "output_tokens_per_s",
    "tbt_p99_ms",
)


def long(bench: Bench) -> str:
    """Short chats beside long prompts: times to first token, in seconds."""
    told = ours(OURS, **A100_CONVERSATION.settings)
    engines = (replace(stock(512, 256, 0), label="stock 512"), STOCK_2048, ours(NOTHING_SET), told)
    runs = {
        (name, engine.name): Run(
            f"long: {name}", f"{rate:g}/s", engine, A100.machine, traffic, rate
        )
        for name, (traffic, rate) in LONG_LOADS.items()
        for engine in engines
    }
    bench.run_all(runs.values())
    rows = []
    for named, run in runs.items():
        found = bench.over_seeds(run)
        rows.append([*named, *(f"{mean(found, n):.3g}" for n in LONG_FIGURES)])
    return markdown(["load", "engine", *LONG_FIGURES], rows)


PARTS: dict[str, Callable[[Bench], str]] = {
    "load": load,
    "ablation": ablation,
    "overload": overload,
    "default": default,
    "strict": strict,
    "long": long,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "mix"), default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    parser.add_argument("--traces", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--trace-requests", type=int, default=4000, metavar="N")
    add_arguments(parser, RESULTS / "goodput.json")
    arguments = parser.parse_args()
    parts = dict(PARTS)
    if arguments.traces:
        parts["mix"] = partial(mix, traces=arguments.traces, num_requests=arguments.trace_requests)
    held = Runs(arguments.output, (), resume=True).figures
    others = {*PARTS, "mix"} - set(arguments.parts)
    asked = [key for key in held if key.split(":")[0] not in others]
    bench = Bench(Runs(arguments.output, asked, arguments.resume), arguments.jobs, arguments.seeds)
    tables = []
    for part in arguments.parts:
        table = parts[part](bench)
        tables.append(f"{title(part, bench)}\n\n{table}")
    bench.runs.write_table("\n\n".join(tables))
    if "load" in arguments.parts:
        found, path = bench.runs, arguments.output.with_suffix(".png")
        draw(found.figures, path, foot(found.provenance))


def title(part: str, bench: Bench) -> str:
    """What a part's table is called, and how many seeds it is of."""
    function = mix if part == "mix" else PARTS[part]
    name = (function.__doc__ or part).partition("\n")[0].removesuffix(".")
    seeds = {key.rsplit(" ", 1)[-1] for key in bench.runs.figures if key.startswith(f"{part}: ")}
    return f"### {name} (seeds: {len(seeds)})"


if __name__ == "__main__":
    main()
