"""The best deployment of Llama-2-70B on Vidur's three traces, beside the one that Vidur found.

Vidur (arXiv 2405.05465, section 7.3) looks for the most requests per second and dollar with
at most 16 A100 or H100, TTFT P90 below 2 s and TBT P99 below 200 ms. Its machines join GPUs by
NVLink in pairs, so that a tensor parallel size of 4 crosses PCIe; ``ring_bandwidth`` follows
from its profiles of all-reduces. Lengths follow table 1; of the traces only arxiv's is public.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import (
    GPUS,
    CapacityGoal,
    EngineSettings,
    LengthDistribution,
    Objectives,
    Quantiles,
    Synthetic,
    find_capacity,
    on_gpus,
    read_model,
)
from vllm_sarathi.simulator.plan.candidate import most_rate
from vllm_sarathi.simulator.results.comparison import default_num_jobs
from vllm_sarathi.simulator.results.tables import table

RESULTS = Path(__file__).parent / "results" / "vidur_search.json"
MAX_MODEL_LEN = 4096
# Its price list: vidur/config_optimizer/analyzer/constants.py, of 2024-02-07.
USD_PER_GPU_HOUR = {"a100": 2.21, "h100": 4.25}
# All-reduces of 8 MiB over four GPUs, in its profiles: 0.58 and 0.31 ms.
ACROSS_PAIRS = {"a100": 23e9, "h100": 49e9}
# With one GPU a stage, a chunk of 512 tokens takes longer than 200 ms through four stages.
SPLITS = ((2, 2), (2, 4), (4, 1))
ENGINES = {
    "stock:512": EngineSettings("stock", max_num_batched_tokens=512, max_num_seqs=256),
    "sarathi": EngineSettings(
        "sarathi", {"ttft_slo_ms": 2000, "tbt_slo_ms": 200}, 2048, max_num_seqs=256
    ),
}
GOAL = CapacityGoal(tbt_s=0.2, goodput=0.9, objectives=Objectives(ttft_s=2.0))


def _lengths(name: str, prompt: Sequence[int], output: Sequence[int]) -> LengthDistribution:
    """Through the shortest, the median, the 90th percentile and the longest."""
    shares = (0.0, 0.5, 0.9, 1.0)
    return LengthDistribution(
        name,
        Quantiles(tuple(zip(shares, prompt, strict=True))),
        Quantiles(tuple(zip(shares, output, strict=True))),
        MAX_MODEL_LEN,
    )


TRACES = {
    "Chat-1M": _lengths("Chat-1M", (20, 417, 1678, 4000), (8, 139, 484, 1500)),
    "Arxiv-4K": _lengths("Arxiv-4K", (800, 2730, 3702, 4000), (40, 167, 372, 2500)),
    "BWB-4K": _lengths("BWB-4K", (300, 1037, 1453, 2500), (500, 1601, 2149, 3000)),
}
# What Vidur found: requests per second and dollar an hour, and what is known of the deployment.
PUBLISHED = {
    "Chat-1M": (0.201, "h100 tp2 pp2, chunk 512, batch 256 (figure 5a)"),
    "Arxiv-4K": (0.046, "not stated"),
    "BWB-4K": (0.026, "a100, batch 64 (section 7.3)"),
}


@dataclass(frozen=True, slots=True)
class Search:
    """One engine on one deployment under one trace."""

    trace: str
    gpu: str
    tensor_parallel: int
    num_stages: int
    engine: str
    num_requests: int

    @property
    def place(self) -> str:
        """The deployment in short."""
        return f"{self.gpu} tp{self.tensor_parallel} pp{self.num_stages}"

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"{self.trace}, {self.place} {self.engine}, capacity"

    def run(self) -> Figures:
        """Find the capacity; requests per second and dollar an hour."""
        gpu = GPUS[self.gpu]
        if self.tensor_parallel > 2:
            gpu = replace(gpu, ring_bandwidth=ACROSS_PAIRS[self.gpu])
        model = read_model("llama-2-70b")
        deployment = on_gpus(gpu, model, self.tensor_parallel, self.num_stages)
        traffic = Synthetic(TRACES[self.trace], self.num_requests)
        found = find_capacity(
            ENGINES[self.engine],
            replace(deployment, max_model_len=MAX_MODEL_LEN),
            traffic,
            GOAL,
            start_rate=0.6 * most_rate(deployment, traffic.at(1.0, 0)),
            precision=0.1,
        )
        usd = USD_PER_GPU_HOUR[self.gpu] * self.tensor_parallel * self.num_stages
        return {
            "place": self.place,
            "engine": self.engine,
            "capacity_rps": found.rate,
            "usd_per_hour": usd,
            "qps_per_usd_hour": found.rate / usd,
            "wall_s": found.wall_s,
            "warm_up_share": None if found.report is None else found.report.warm_up_share,
            "checks": [check._asdict() for check in found.checks],
        }


def summary(runs: Runs) -> str:
    """For each trace and scheduler the best deployment, beside Vidur's."""
    rows: list[list[Any]] = []
    for case, by_engine in runs.by_case().items():
        trace = case.removesuffix(", capacity")
        rows.append([trace, "Vidur", PUBLISHED[trace][1], None, PUBLISHED[trace][0]])
        found = [figures for seeds in by_engine.values() for figures in seeds]
        for engine in ENGINES:
            own = [one for one in found if one["engine"] == engine]
            ranked = sorted(own, key=lambda one: -float(one["qps_per_usd_hour"]))
            for place, one in enumerate(ranked[:3]):
                name = f"{engine}, best" if place == 0 else f"{engine}, next"
                rows.append(
                    [trace, name, one["place"], one["capacity_rps"], one["qps_per_usd_hour"]]
                )
    return table(("trace", "found by", "deployment", "capacity req/s", "req/s per USD/h"), rows)


def main() -> None:
    """Run the searches and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, RESULTS)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--num-requests", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=default_num_jobs())
    options = parser.parse_args()
    searches = [
        Search(trace, gpu, *split, engine, options.num_requests)
        for trace in TRACES
        for gpu in USD_PER_GPU_HOUR
        for split in SPLITS
        for engine in options.engines
    ]
    runs = Runs(options.output, [one.key for one in searches], options.resume)
    runs.measure(Search.run, searches, options.jobs)
    runs.write_table(summary(runs))


if __name__ == "__main__":
    main()
