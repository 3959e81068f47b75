"""A real pipeline: our scheduler and stock vLLM at the same loads.

Both engines live through the whole run, and each load goes to one and then to the other,
so that whatever else the machine does affects both. On CPUs each stage has its share of the
cores.

Two bounds stand beside decode-heavy loads. One is a stage's share of the requests alone in
stock's pipeline, all but one stage idle. The other knows what busy cores take from each
other: each share of the cores has an engine without a pipeline, and all run a share of the
requests at once, which is the same work on each core with no bubble at all (CPUs only).
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track
from support.live_engine import LiveEngine, Load
from support.model import DEFAULT_MODEL
from support.provenance import provenance

RESULTS = Path(__file__).parent / "results"
# What is compared is throughput, so ours is told no objective, as stock vLLM has none.
SETTINGS = {"sarathi": {"tbt_slo_ms": None}}
SIDES = {"stock": {}, "sarathi": {"scheduler_cls": "sarathi", "additional_config": SETTINGS}}
DECODE_HEAVY = (Load(16, 64, 128), Load(32, 64, 128))
CORES = "VLLM_CPU_OMP_THREADS_BIND"
LOADS = (*DECODE_HEAVY, Load(8, 512, 64), Load(16, 256, 64, rate=2.0), Load(1, 64, 64))


def environment(stages: int) -> dict[str, str]:
    """What vLLM is told: no network and, on CPUs, memory and cores of a stage.

    Variables that are set already stay as they are.
    """
    told = {"HF_HUB_OFFLINE": "1"}
    if "cpu" in version("vllm"):
        cores = sorted(os.sched_getaffinity(0))
        ends = [len(cores) * stage // stages for stage in range(stages + 1)]
        shares = [",".join(map(str, cores[a:b])) for a, b in pairwise(ends)]
        told |= {"VLLM_CPU_KVCACHE_SPACE": "1", CORES: "|".join(shares)}
    return {name: os.environ.get(name, value) for name, value in told.items()}


def engine_arguments(name: str, model: str, stages: int) -> dict[str, Any]:
    """Arguments of vLLM's ``LLM``."""
    return {
        "model": model,
        **SIDES[name],
        "pipeline_parallel_size": stages,
        "dtype": "float32",
        "max_model_len": 1024,
        "enable_prefix_caching": False,
    }


def cores_of_stages(told: dict[str, str], stages: int) -> list[str]:
    """Cores of each stage, where each has its own."""
    shares = told.get(CORES, "").split("|")
    return shares if len(shares) == stages else []


def start(stack: ExitStack, name: str, model: str, stages: int, **environment: str) -> LiveEngine:
    """An engine that lives as long as the stack."""
    with Console().status(f"starting {name}, {stages} stages"):
        engine = LiveEngine(name, engine_arguments(name, model, stages), environment)
    stack.callback(engine.stop)
    return engine


def pairs(
    sides: dict[str, LiveEngine], singles: list[LiveEngine], stages: int, num_pairs: int
) -> Iterator[dict[str, Any]]:
    """Each load on both engines, alternately; the first round warms up and is not given."""
    for seed, load in track(list(product(range(num_pairs + 1), LOADS)), "pairs"):
        order = list(sides) if seed % 2 else list(sides)[::-1]
        found = {name: sides[name].run(load, seed) for name in order}
        bounds = {}
        if load in DECODE_HEAVY:
            share = replace(load, num_requests=load.num_requests // stages)
            bounds = {
                "stock_share_s": at_once([sides["stock"]], share, seed),
                "singles_share_s": at_once(singles, share, seed),
            }
        if seed:
            yield {
                "load": load.name,
                "seed": seed,
                **{f"{name}_s": duration_s for name, (duration_s, _) in found.items()},
                **bounds,
                "equal_tokens": found["stock"][1] == found["sarathi"][1],
            }


def at_once(engines: list[LiveEngine], load: Load, seed: int) -> float | None:
    """Seconds until all engines have run a load, or None without any."""
    for engine in engines:
        engine.begin(load, seed)
    return max((engine.end()[0] for engine in engines), default=None)


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: medians, and the median ratio of a pair beside its bounds."""
    head = ("load", "stock, s", "sarathi, s", "ratio", "bound, others idle", "bound, all busy")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for load in dict.fromkeys(pair["load"] for pair in found):
        same = [pair for pair in found if pair["load"] == load]
        ratios = speedups(same, "sarathi_s")
        cells = [f"{median(pair[f'{side}_s'] for pair in same):.2f}" for side in SIDES]
        cells += [f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        for bound in ("stock_share_s", "singles_share_s"):
            most = speedups(same, bound)
            cells += [f"{median(most):.2f}" if most else ""]
        rows.append(f"| {load} | {' | '.join(cells)} |")
    num_equal = sum(pair["equal_tokens"] for pair in found)
    return "\n".join([*rows, "", f"Equal tokens in {num_equal} of {len(found)} pairs."])


def speedups(found: list[dict[str, Any]], than: str) -> list[float]:
    """How much longer stock's pipeline took, in each pair that has both times."""
    return [pair["stock_s"] / pair[than] for pair in found if pair.get(than)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--stages", type=int, default=2, metavar="N")
    parser.add_argument("--pairs", type=int, default=5, metavar="N")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "pipeline_engine.json", metavar="FILE"
    )
    arguments = parser.parse_args()
    told = environment(arguments.stages)
    os.environ.update(told)
    raw = provenance(model=Path(arguments.model).name, stages=arguments.stages, environment=told)
    raw["pairs"] = []
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sides = {name: start(stack, name, arguments.model, arguments.stages) for name in SIDES}
        singles = [
            start(stack, "stock", arguments.model, 1, **{CORES: cores})
            for cores in cores_of_stages(told, arguments.stages)
        ]
        for pair in pairs(sides, singles, arguments.stages, arguments.pairs):
            raw["pairs"].append(pair)
            arguments.output.write_text(json.dumps(raw, indent=1))
    arguments.output.with_suffix(".md").write_text(table(raw["pairs"]) + "\n")
    print(table(raw["pairs"]))


if __name__ == "__main__":
    main()
