"""Offline batches on a real engine: the preset "offline" beside stock vLLM, in turns.

Both engines live through the whole run and have a KV cache for three of twelve prefixes, besides
what runs. Each load goes to one and then to the other, so that whatever else the machine does
affects both.
"""

import argparse
import json
import os
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import track
from support.live_engine import LiveEngine, Load
from support.model import DEFAULT_MODEL
from support.provenance import provenance

RESULTS = Path(__file__).parent / "results"
OFFLINE = {"sarathi": {"preset": "offline"}}
SIDES = {"stock": {}, "offline": {"scheduler_cls": "sarathi", "additional_config": OFFLINE}}
LOADS = (
    Load(72, 32, 16, num_prefixes=12, prefix_tokens=512),
    Load(18, 544, 16),
)
BLOCK_SIZE, MAX_NUM_SEQS = 32, 8
KV_TOKENS = 3 * 512 + MAX_NUM_SEQS * 96
"""For three prefixes and what runs."""


def environment() -> dict[str, str]:
    """What vLLM is told: no network and, on CPUs, little memory. What is set already stays."""
    told = {"HF_HUB_OFFLINE": "1"}
    if "cpu" in version("vllm"):
        told["VLLM_CPU_KVCACHE_SPACE"] = "1"
    return {name: os.environ.get(name, value) for name, value in told.items()}


def engine_arguments(name: str, model: str) -> dict[str, Any]:
    """Arguments of vLLM's ``LLM``."""
    return {
        "model": model,
        **SIDES[name],
        "dtype": "float32",
        "max_model_len": 1024,
        "max_num_seqs": MAX_NUM_SEQS,
        "enforce_eager": True,
        "block_size": BLOCK_SIZE,
        "num_gpu_blocks_override": KV_TOKENS // BLOCK_SIZE,
    }


def table(pairs: list[dict[str, Any]]) -> str:
    """Markdown: medians, and the ratio of each pair."""
    rows = ["| load | stock, s | offline, s | stock / offline |", "|---|---|---|---|"]
    for load in dict.fromkeys(pair["load"] for pair in pairs):
        same = [pair for pair in pairs if pair["load"] == load]
        stock, ours = (median(pair[f"{side}_s"] for pair in same) for side in SIDES)
        ratios = [pair["stock_s"] / pair["offline_s"] for pair in same]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(f"| {load} | {stock:.1f} | {ours:.1f} | {spread} |")
    num_equal = sum(pair["equal_tokens"] for pair in pairs)
    return "\n".join([*rows, "", f"Equal tokens in {num_equal} of {len(pairs)} pairs."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--pairs", type=int, default=3, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS / "offline_engine.json")
    arguments = parser.parse_args()
    told = environment()
    os.environ.update(told)
    raw = provenance(model=Path(arguments.model).name, environment=told, kv_tokens=KV_TOKENS)
    raw["pairs"] = []
    warm_up = Load(8, 200, 8)
    with ExitStack() as stack:
        engines = {}
        for name in SIDES:
            engines[name] = LiveEngine(name, engine_arguments(name, arguments.model))
            stack.callback(engines[name].stop)
            engines[name].run(warm_up, 0)
        asked = [(seed, load) for seed in range(arguments.pairs) for load in LOADS]
        for seed, load in track(asked, "pairs"):
            order = list(engines) if seed % 2 else list(engines)[::-1]
            found = {name: engines[name].run(load, seed) for name in order}
            raw["pairs"].append(
                {
                    "load": load.name,
                    "seed": seed,
                    **{f"{name}_s": duration_s for name, (duration_s, _) in found.items()},
                    "equal_tokens": found["stock"][1] == found["offline"][1],
                }
            )
            arguments.output.write_text(json.dumps(raw, indent=1))
    arguments.output.with_suffix(".md").write_text(table(raw["pairs"]) + "\n")
    print(table(raw["pairs"]))


if __name__ == "__main__":
    main()
