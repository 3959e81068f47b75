"""A run in the keys of ``vllm bench serve``, beside whose results it can be drawn."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vllm_sarathi.latency import percentile
from vllm_sarathi.simulator.load.traffic import Synthetic, Traffic
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.report import Report

LEVELS = (50, 90, 99)
BACKEND = "vllm-sarathi"


def bench_result(
    report: Report, deployment: Deployment, traffic: Traffic, rate: float, seed: int
) -> dict[str, Any]:
    """What ``vllm bench serve --save-result`` writes of such a run; None where undefined.

    Unlike vLLM's, the gaps of a request that was not served count too. Texts and times of single
    requests are left out, and so is the peak of output tokens in a second.

    Args:
        report: the run.
        deployment: what it ran on.
        traffic: its load.
        rate: requests per second, as asked for.
        seed: of the run.
    """
    at_once = isinstance(traffic, Synthetic) and traffic.at_once
    served, lengths = np.isfinite(report.per_request.e2e_s), report.workload.lengths
    duration_s, num_served = report.duration_s, int(served.sum())
    num_input = int(lengths.num_prompt[served].sum())

    def per_s(num: float) -> float | None:
        return num / duration_s if duration_s else None

    return {
        "label": report.label,
        "backend": BACKEND,
        "endpoint_type": BACKEND,
        "model_id": deployment.name,
        "dataset_name": report.workload.name,
        "num_prompts": len(report.workload),
        "request_rate": "inf" if at_once else rate,
        "burstiness": _burstiness(traffic),
        "max_concurrency": None,
        "seed": seed,
        "pipeline_parallel_size": len(deployment.stages),
        "duration": duration_s,
        "completed": num_served,
        "failed": len(served) - num_served,
        "total_input_tokens": num_input,
        "total_output_tokens": report.num_output_tokens,
        "request_throughput": per_s(num_served),
        "request_goodput": report.request_goodput,
        "output_throughput": report.output_tokens_per_s,
        "total_token_throughput": per_s(num_input + report.num_output_tokens),
        "max_concurrent_requests": _most_at_once(report),
        **_latencies(report),
    }


def _burstiness(traffic: Traffic) -> float | None:
    """vLLM's shape of the gaps between arrivals; None where they are even or recorded."""
    cv = traffic.arrivals.cv if isinstance(traffic, Synthetic) and not traffic.at_once else 0.0
    return 1 / cv**2 if cv else None


def _latencies(report: Report) -> dict[str, float | None]:
    """Mean, median, deviation and percentiles in milliseconds: vLLM's ITL are the gaps."""
    rows, found = report.per_request, dict[str, float | None]()
    for name, values in (("ttft", rows.ttft_s), ("tpot", rows.tpot_s), ("e2el", rows.e2e_s)):
        known = values[np.isfinite(values)]
        moments = (float(known.mean()), float(known.std())) if len(known) else None
        found |= _statistics(name, moments, [percentile(known, level) for level in LEVELS])
    gaps = report.gaps
    return found | _statistics("itl", gaps.moments, [gaps.percentile(level) for level in LEVELS])


def _statistics(
    name: str, moments: tuple[float, float] | None, percentiles_s: list[float | None]
) -> dict[str, float | None]:
    mean_s, std_s = moments or (None, None)
    named = {f"p{level}": value for level, value in zip(LEVELS, percentiles_s, strict=True)}
    values_s = {"mean": mean_s, "median": named["p50"], "std": std_s, **named}
    return {
        f"{key}_{name}_ms": None if value_s is None else value_s * 1e3
        for key, value_s in values_s.items()
    }


def _most_at_once(report: Report) -> int:
    """Most requests that were in the engine in one second, as vLLM counts them."""
    arrival_s, e2e_s = report.workload.arrival_s, report.per_request.e2e_s
    served = np.isfinite(e2e_s)
    if not served.any():
        return 0
    begin = np.floor(arrival_s - arrival_s[served].min())[served].astype(int)
    end = np.floor(arrival_s + e2e_s - arrival_s[served].min())[served].astype(int)
    change = np.zeros(end.max() + 2, int)
    np.add.at(change, begin, 1)
    np.add.at(change, end + 1, -1)
    return int(np.cumsum(change).max())


def write_results(results: Iterable[dict[str, Any]], folder: Path) -> None:
    """Write each result to a file of its own, and all to the ``summary.json`` of a sweep.

    ``vllm bench sweep plot FOLDER`` reads the latter, beside those of folders in it.
    """
    found = list(results)
    for result in found:
        name = re.sub(r"[^\w.=-]+", "_", result["label"])
        path = folder / f"{name}-rate={float(result['request_rate']):g}-seed={result['seed']}.json"
        path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    (folder / "summary.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
