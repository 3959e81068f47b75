"""A real pipeline: our scheduler and stock vLLM take turns at the same loads.

Both engines live through the whole run, and each load goes to one and then to the other,
so that whatever else the machine does meets both. On CPUs each stage has its share of the
cores.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

from live_engine import LiveEngine, Load
from model import DEFAULT_MODEL
from provenance import provenance
from rich.console import Console
from rich.progress import track

RESULTS = Path(__file__).parent / "results"
SIDES = {"stock": {}, "sarathi": {"scheduler_cls": "sarathi"}}
# What is compared is throughput, so ours is told no objective, as stock vLLM has none.
SETTINGS = {"sarathi": {"tbt_slo_ms": None}}
DECODE_HEAVY = (Load(16, 64, 128), Load(32, 64, 128))
HALF = {load: Load(load.num_requests // 2, 64, 128) for load in DECODE_HEAVY}
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
        told |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "|".join(shares)}
    return {name: os.environ.get(name, value) for name, value in told.items()}


def engine_arguments(name: str, model: str, stages: int) -> dict[str, Any]:
    """Arguments of vLLM's ``LLM``."""
    return {
        "model": model,
        **SIDES[name],
        "additional_config": SETTINGS,
        "pipeline_parallel_size": stages,
        "dtype": "float32",
        "max_model_len": 1024,
        "enable_prefix_caching": False,
    }


@contextmanager
def engines(model: str, stages: int) -> Iterator[dict[str, LiveEngine]]:
    """Both engines, one started after the other."""
    sides: dict[str, LiveEngine] = {}
    try:
        for name in SIDES:
            with Console().status(f"starting {name}"):
                sides[name] = LiveEngine(name, engine_arguments(name, model, stages))
        yield sides
    finally:
        for side in sides.values():
            side.stop()


def pairs(sides: dict[str, LiveEngine], num_pairs: int) -> Iterator[dict[str, Any]]:
    """Each load on both engines, in turns; the first round warms up and is not given."""
    for seed, load in track(list(product(range(num_pairs + 1), LOADS)), "pairs"):
        order = list(sides) if seed % 2 else list(sides)[::-1]
        found = {name: sides[name].run(load, seed) for name in order}
        half_s = sides["stock"].run(HALF[load], seed)[0] if load in HALF else None
        if seed:
            yield {
                "load": load.name,
                "seed": seed,
                **{f"{name}_s": duration_s for name, (duration_s, _) in found.items()},
                "stock_half_batch_s": half_s,
                "equal_tokens": found["stock"][1] == found["sarathi"][1],
            }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: medians, and the median ratio of a pair beside its bound.

    A full batch on two stages in turn can be no faster than two half batches at once.
    """
    rows = ["| load | stock, s | sarathi, s | ratio | bound |", "|---|---|---|---|---|"]
    for load in dict.fromkeys(pair["load"] for pair in found):
        same = [pair for pair in found if pair["load"] == load]
        ratios = [pair["stock_s"] / pair["sarathi_s"] for pair in same]
        bounds = [p["stock_s"] / p["stock_half_batch_s"] for p in same if p["stock_half_batch_s"]]
        cells = [f"{median(pair[f'{side}_s'] for pair in same):.2f}" for side in SIDES]
        cells += [f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        cells += [f"{median(bounds):.2f}" if bounds else ""]
        rows.append(f"| {load} | {' | '.join(cells)} |")
    num_equal = sum(pair["equal_tokens"] for pair in found)
    return "\n".join([*rows, "", f"Equal tokens in {num_equal} of {len(found)} pairs."])


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
    with engines(arguments.model, arguments.stages) as sides:
        for pair in pairs(sides, arguments.pairs):
            raw["pairs"].append(pair)
            arguments.output.write_text(json.dumps(raw, indent=1))
    arguments.output.with_suffix(".md").write_text(table(raw["pairs"]) + "\n")
    print(table(raw["pairs"]))


if __name__ == "__main__":
    main()
