"""A real pipeline: our scheduler and stock vLLM take turns at the same loads.

Both engines live through the whole run, and each load goes to one and then to the other,
so that whatever else the machine does meets both. Two CPU cores make two stages
(``VLLM_CPU_OMP_THREADS_BIND="0|1"``); on GPUs leave that variable unset.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from model import DEFAULT_MODEL
from provenance import provenance
from rich.console import Console
from rich.progress import track

RESULTS = Path(__file__).parent / "results"
SIDES = {"stock": {}, "sarathi": {"scheduler_cls": "sarathi"}}
# What is compared is throughput, so ours is told no objective, as stock vLLM has none.
SETTINGS = {"sarathi": {"tbt_slo_ms": None}}
VOCABULARY = 1000
START_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one shape: all at once, or at a mean rate by a Poisson process."""

    num_requests: int
    prompt_tokens: int
    output_tokens: int
    rate: float | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        arrivals = f", {self.rate:g}/s" if self.rate else ""
        return f"{self.num_requests} x {self.prompt_tokens} in, {self.output_tokens} out{arrivals}"

    def arrivals_s(self, random_: random.Random) -> list[float]:
        """When each request comes, from the beginning."""
        times, now_s = [], 0.0
        for _ in range(self.num_requests):
            times.append(now_s)
            now_s += random_.expovariate(self.rate) if self.rate else 0.0
        return times


DECODE_HEAVY = (Load(16, 64, 128), Load(32, 64, 128))
HALF = {load: Load(load.num_requests // 2, 64, 128) for load in DECODE_HEAVY}
LOADS = (*DECODE_HEAVY, Load(8, 512, 64), Load(16, 256, 64, rate=2.0), Load(1, 64, 64))


def serve(pipe: Connection, model: str, side: str, stages: int) -> None:
    """In a process of its own: run loads as they are asked for."""
    from vllm import LLM

    llm = LLM(
        model,
        **SIDES[side],
        additional_config=SETTINGS,
        pipeline_parallel_size=stages,
        dtype="float32",
        max_model_len=1024,
        enable_prefix_caching=False,
    )
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        pipe.send(run(llm.llm_engine, *asked))
    llm.llm_engine.engine_core.shutdown()


def run(engine: Any, load: Load, seed: int) -> tuple[float, list[list[int]]]:
    """Seconds that a load takes, and its tokens."""
    from vllm import SamplingParams

    random_ = random.Random(seed)
    params = SamplingParams(max_tokens=load.output_tokens, ignore_eos=True, temperature=0.0)
    prompts = [
        random_.choices(range(VOCABULARY), k=load.prompt_tokens) for _ in range(load.num_requests)
    ]
    due = list(zip(load.arrivals_s(random_), range(load.num_requests), strict=True))
    tokens: list[list[int]] = [[] for _ in prompts]
    began_s = time.monotonic()
    while due or engine.has_unfinished_requests():
        while due and due[0][0] <= time.monotonic() - began_s:
            _, index = due.pop(0)
            engine.add_request(str(index), {"prompt_token_ids": prompts[index]}, params)
        if not engine.has_unfinished_requests():
            time.sleep(0.001)
            continue
        for output in engine.step():
            if output.finished:
                tokens[int(output.request_id)] = list(output.outputs[0].token_ids)
    return time.monotonic() - began_s, tokens


class Side:
    """One engine, in a process of its own."""

    def __init__(self, model: str, name: str, stages: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, model, name, stages)
        self.process = context.Process(target=serve, args=arguments)
        self.process.start()
        if not self.pipe.poll(START_LIMIT_S) or self.pipe.recv() != "ready":
            raise RuntimeError(f"the engine {name!r} did not start")

    def run(self, load: Load, seed: int) -> tuple[float, list[list[int]]]:
        """Seconds that a load takes, and its tokens."""
        self.pipe.send((load, seed))
        found: tuple[float, list[list[int]]] = self.pipe.recv()
        return found

    def stop(self) -> None:
        """End the engine."""
        self.pipe.send(None)
        self.process.join(60)
        self.process.terminate()


@contextmanager
def engines(model: str, stages: int) -> Iterator[dict[str, Side]]:
    """Both engines, one started after the other."""
    sides: dict[str, Side] = {}
    try:
        for name in SIDES:
            with Console().status(f"starting {name}"):
                sides[name] = Side(model, name, stages)
        yield sides
    finally:
        for side in sides.values():
            side.stop()


def pairs(sides: dict[str, Side], num_pairs: int) -> Iterator[dict[str, Any]]:
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
    raw = provenance(model=Path(arguments.model).name, stages=arguments.stages) | {"pairs": []}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with engines(arguments.model, arguments.stages) as sides:
        for pair in pairs(sides, arguments.pairs):
            raw["pairs"].append(pair)
            arguments.output.write_text(json.dumps(raw, indent=1))
    arguments.output.with_suffix(".md").write_text(table(raw["pairs"]) + "\n")
    print(table(raw["pairs"]))


if __name__ == "__main__":
    main()
