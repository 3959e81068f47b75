"""The simulator beside a real server: same machine, same requests, same scheduler.

Run ``python benchmarks/fidelity.py`` on an otherwise idle machine. A first load on
``vllm serve`` records step times, ``calibrate`` fits them, and a second load with other
requests goes to the server and through the simulator. Prints a table of both and
writes results/fidelity.md and .json.
"""

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from support.model import DEFAULT_MODEL
from support.provenance import provenance
from support.replay import replay
from support.server import serve

from vllm_sarathi.latency import RequestTimes, percentile
from vllm_sarathi.simulator import (
    Arrivals,
    Deployment,
    EngineSettings,
    LengthDistribution,
    Quantiles,
    Report,
    Synthetic,
    Workload,
    simulate,
)
from vllm_sarathi.simulator.machine.calibration import Fit, Step, fit, read_steps
from vllm_sarathi.simulator.results.tables import table

RESULTS = Path(__file__).parent / "results"
VARIABLES = ("VLLM_LOGGING_LEVEL", "VLLM_CPU_KVCACHE_SPACE", "HF_HUB_OFFLINE")
LENGTHS = LengthDistribution(
    "fidelity", Quantiles(((0, 16), (0.5, 120), (1, 700))), Quantiles(((0, 8), (1, 64))), 1024
)
KV_TOKENS, MAX_MODEL_LEN, MAX_NUM_SEQS, BUDGET = 40_000, 2048, 64, 128
FLAGS = (
    "--dtype", "float32", "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs",
    str(MAX_NUM_SEQS), "--max-num-batched-tokens", "2048", "--no-enable-prefix-caching",
    "--scheduler", "sarathi", "--sarathi-preset", "stall-free", "--sarathi-token-budget",
    str(BUDGET),
)  # fmt: skip
ENGINE = EngineSettings(
    "sarathi",
    {"preset": "stall-free", "token_budget": BUDGET},
    max_num_seqs=MAX_NUM_SEQS,
    async_scheduling=False,
    v2_model_runner=False,
)
METRICS = (("TTFT", 50), ("TTFT", 99), ("TBT", 50), ("TBT", 99))


def measure(model: str, loads: list[Workload]) -> tuple[list[list[RequestTimes]], list[Step]]:
    """Send loads to one server one after the other; the steps are those of the first."""
    recorded = Path(tempfile.mkdtemp()) / "steps.jsonl"
    with serve(model, (*FLAGS, "--sarathi-step-log", str(recorded))) as server:
        # Compiles and caches warm up on the first load, played fast.
        asyncio.run(replay(server.url, model, loads[0].at_times(loads[0].arrival_s / 50), 99))
        num_warm, found = len(read_steps(recorded)), []
        steps: list[Step] = []
        for seed, load in enumerate(loads):
            print(f"load {seed}: {len(load)} requests in {load.arrival_s[-1]:.0f} s", flush=True)
            found.append(asyncio.run(replay(server.url, model, load, seed)))
            steps = steps or read_steps(recorded)[num_warm:]
    return found, steps


def figures(times: list[RequestTimes]) -> dict[str, float]:
    """P50 and P99 of TTFT and TBT, in seconds."""
    values: dict[str, list[float]] = {
        "TTFT": [t.ttft_s for t in times if t.ttft_s is not None],
        "TBT": [gap for t in times for gap in t.tbts_s],
    }
    return {f"{name} p{p}": percentile(values[name], p) or 0.0 for name, p in METRICS}


def simulated(report: Report, front_s: float) -> dict[str, float]:
    """The same figures of a simulated run; ``front_s`` is the HTTP server's share of TTFT."""
    found = {f"TTFT p{p}": (report.percentile("ttft_s", p) or 0.0) + front_s for p in (50, 99)}
    return {**found, **{f"TBT p{p}": report.gaps.percentile(p) or 0.0 for p in (50, 99)}}


def front_end_s(times: list[RequestTimes], report: Report) -> float:
    """What HTTP, tokenizing and sockets add to TTFT, by the calibration load."""
    differences = [
        t.ttft_s - s
        for t, s in zip(times, report.per_request.ttft_s, strict=True)
        if t.ttft_s is not None
    ]
    return max(0.0, float(median(differences)))


TEXT = """# The simulator beside a real server

Written by `{command}`: {model}, float32, `vllm serve` with
`--scheduler sarathi`, stall-free at {budget} tokens, on {cores} CPU cores. {steps} recorded steps
calibrated the costs (error of a step: median {p50:.1%}, p90 {p90:.1%}); other requests than those
then went to the server and through the simulator at {rates} requests/s.

{table}

Median error of P50/P99 TTFT and TBT: **{error:.1%}**. {front:.1f} ms of TTFT are the HTTP
server's, taken from the calibration load.
"""


def write(
    found: Fit, front_s: float, rows: list[list[Any]], errors: list[float], of: dict[str, Any]
) -> None:
    """Write the table and the figures, with what they are of: provenance and raw times."""
    header = ("requests/s", "figure", "server ms", "simulator ms", "error")
    text = TEXT.format(
        **of["provenance"],
        budget=BUDGET,
        cores=os.cpu_count(),
        steps=found.num_steps,
        p50=found.error_p50,
        p90=found.error_p90,
        rates=" and ".join(dict.fromkeys(str(row[0]) for row in rows)),
        table=table(header, rows),
        error=median(errors),
        front=front_s * 1e3,
    )
    (RESULTS / "fidelity.md").write_text(text)
    kept = {**of, "rows": rows, "fit": found.figures(), "front_end_s": front_s}
    (RESULTS / "fidelity.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(text)


def raw(times: list[RequestTimes]) -> list[dict[str, Any]]:
    """Arrivals and token times of a load, in seconds from its first arrival."""
    began_s = times[0].arrival_s
    return [
        {
            "arrival_s": round(t.arrival_s - began_s, 4),
            "token_times_s": [round(time_s - began_s, 4) for time_s in t.token_times_s],
        }
        for t in times
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a Hugging Face folder")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.4, 0.6])
    options = parser.parse_args()
    environment = {name: os.environ[name] for name in VARIABLES}
    of = provenance(model=Path(options.model).name, environment=environment)
    traffic = Synthetic(LENGTHS, options.requests, Arrivals())
    loads = [
        traffic.at(rate, seed) for seed, rate in enumerate([max(options.rates), *options.rates])
    ]
    times, steps = measure(options.model, loads)
    found = fit(steps)
    deployment: Deployment = found.deployment("this machine", KV_TOKENS, MAX_MODEL_LEN)
    reports = [simulate(ENGINE, deployment, load) for load in loads]
    front_s = front_end_s(times[0], reports[0])
    rows, errors = [], []
    for rate, measured, report in zip(options.rates, times[1:], reports[1:], strict=True):
        real, virtual = figures(measured), simulated(report, front_s)
        for name, value in real.items():
            error = virtual[name] / value - 1
            errors.append(abs(error))
            rows.append([rate, name, value * 1e3, virtual[name] * 1e3, f"{error:+.1%}"])
    write(found, front_s, rows, errors, {"provenance": of, "loads": [raw(load) for load in times]})


if __name__ == "__main__":
    main()
