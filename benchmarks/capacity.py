"""Capacity of the learned budget beside every static budget of stock vLLM, in virtual time.

Writes after each search; a run that was interrupted takes up where it stopped.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

from provenance import provenance
from rich.progress import track

from vllm_sarathi.simulator import (
    LENGTHS,
    Arrivals,
    CapacityGoal,
    EngineSettings,
    Synthetic,
    find_capacity,
    preset,
)

RESULTS = Path(__file__).parent / "results"
DEPLOYMENTS = ("a100-llama-3-8b", "h100-llama-3-8b")
WORKLOADS = ("sharegpt", "arxiv", "conversation", "code")
OBJECTIVES_MS = (50, 100)
STATIC_BUDGETS = (256, 384, 512, 768, 1024, 2048)
LEARNED = "sarathi"
CODE_ARRIVALS_CV = 13.0  # of the Azure coding trace
STEP_NOISE = 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """A deployment, a workload and an objective."""

    deployment: str
    workload: str
    tbt_ms: int

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.deployment}, {self.workload}, {self.tbt_ms} ms"


def engine(label: str, case: Case) -> EngineSettings:
    if label == LEARNED:
        settings = {"tbt_slo_ms": case.tbt_ms}
        return EngineSettings(LEARNED, settings, max_num_batched_tokens=8192, label=label)
    return EngineSettings("stock", max_num_batched_tokens=int(label), label=label)


def search(label: str, case: Case, seed: int, num_requests: int, start: float) -> dict[str, Any]:
    cv = CODE_ARRIVALS_CV if case.workload == "code" else 1.0
    found = find_capacity(
        engine(label, case),
        preset(case.deployment),
        Synthetic(LENGTHS[case.workload], num_requests, Arrivals(cv=cv)),
        CapacityGoal(tbt_s=case.tbt_ms / 1e3),
        seed=seed,
        noise=STEP_NOISE,
        start_rate=start,
    )
    return found.summary()


def table(cases: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: capacities in requests per second, mean over seeds, and the ratios."""
    labels = [*map(str, STATIC_BUDGETS), LEARNED]
    rows = ["| case | " + " | ".join(labels) + " | to best static | to 2048 |"]
    rows.append("|---" * (len(labels) + 3) + "|")
    ratios = []
    for name, rates in cases.items():
        means = {label: mean(rates[label]) for label in labels if label in rates}
        if len(means) < len(labels):
            continue
        best = max(means[label] for label in labels[:-1])
        ratios.append(means[LEARNED] / best)
        to_default = means[LEARNED] / means["2048"] if means["2048"] else float("inf")
        cells = " | ".join(f"{means[label]:.2f}" for label in labels)
        rows.append(f"| {name} | {cells} | {ratios[-1]:.3f} | {to_default:.2f} |")
    if ratios:
        rows.append(f"\nGeometric mean over the best static budget: {geometric_mean(ratios):.3f}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--requests", type=int, default=400, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS / "capacity.json", metavar="FILE")
    arguments = parser.parse_args()
    raw = {"provenance": provenance(), "runs": {}}
    if arguments.output.exists():
        raw["runs"] = json.loads(arguments.output.read_text())["runs"]
    cases = [Case(*fields) for fields in product(DEPLOYMENTS, WORKLOADS, OBJECTIVES_MS)]
    labels = [*map(str, STATIC_BUDGETS), LEARNED]
    todo = list(product(range(arguments.seeds), cases, labels))
    rates: dict[str, dict[str, list[float]]] = {}
    for seed, case, label in track(todo, description="searching"):
        key = f"{case.name}, {label}, {arguments.requests} requests, seed {seed}"
        known = rates.setdefault(case.name, {}).setdefault(label, [])
        if key not in raw["runs"]:
            start = known[-1] if known else 2.0
            raw["runs"][key] = search(label, case, seed, arguments.requests, max(start, 0.1))
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(raw, indent=1))
        known.append(raw["runs"][key]["capacity_rps"])
    text = table(rates)
    arguments.output.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
