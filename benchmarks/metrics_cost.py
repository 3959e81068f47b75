"""What counting metrics costs the engine loop, and answering a scrape its process.

A real scheduler serves requests with objectives, and no model runs. Each call that counts is timed.
A step's own calls add up; calls for a request or a late token are told apart, for steps have none
or many of them. With several API servers prometheus_client shares metrics in files: that is
measured too, since its own metrics cost more then. Quoted are lower deciles, for what else the
machine does only adds to a time, and medians.

Run ``python benchmarks/metrics_cost.py``: writes results/metrics_cost.json and metrics_cost.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from support.provenance import provenance

RESULTS = Path(__file__).parent / "results"
NUM_RUNNING = (16, 256, 1000)
NUM_STEPS = 2000
STEP = ("count_schedule", "count_overhead", "count_result")
REQUEST = ("waited", "follow", "began", "ended")
SETTINGS = {"ttft_slo_ms": 200, "tpot_slo_ms": 20, "tbt_slo_ms": 100}
MOST_US = 20.0
"""What a step may cost."""


class Timed:
    """Stands for an object, and notes how long each call of its methods takes.

    Args:
        of: the object.
        calls_s: seconds of each call, by the name of the method.
    """

    def __init__(self, of: Any, calls_s: dict[str, list[float]]) -> None:
        self._of = of
        self._calls_s = calls_s

    def __getattr__(self, name: str) -> Any:
        found, calls_s = getattr(self._of, name), self._calls_s[name]
        if not callable(found):
            return found

        def timed(*args: Any, **kwargs: Any) -> Any:
            began_s = perf_counter()
            result = found(*args, **kwargs)
            calls_s.append(perf_counter() - began_s)
            return result

        setattr(self, name, timed)
        return timed


def timed(scheduler: Any) -> dict[str, list[float]]:
    """Time all that counts in a scheduler; seconds of each call."""
    calls_s: dict[str, list[float]] = defaultdict(list)
    recorder = scheduler._recorder
    objectives = Timed(recorder.objectives, calls_s)
    follow = objectives.follow
    scheduler._promises.listen = lambda *asked: Timed(follow(*asked), calls_s)
    standing_in: Any = Timed(recorder, calls_s)
    standing_in.objectives = objectives
    scheduler._recorder = scheduler.step_observer._recorder = standing_in
    return calls_s


def measure(num_running: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each call that counts, and of a scrape."""
    from prometheus_client import generate_latest
    from support.made_up_model import answer_to
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    from vllm_sarathi.simulator import EngineSettings
    from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine
    from vllm_sarathi.simulator.run import quiet_vllm

    settings = EngineSettings(
        "soak.Counted", SETTINGS, max_num_seqs=num_running, max_num_batched_tokens=8192,
        async_scheduling=True,
    )  # fmt: skip
    with quiet_vllm(), gpu_engine(settings, 1, 2_000_000, 8192) as (scheduler, _):
        registry, calls_s = scheduler._recorder.catalogue.registry, timed(scheduler)
        in_flight: deque[Any] = deque()
        num_added = 0
        for _ in range(NUM_STEPS):
            while len(scheduler.requests) < num_running + 4:
                params = SamplingParams(max_tokens=20 + num_added % 80, ignore_eos=True)
                scheduler.add_request(Request(f"r{num_added}", [1] * 64, params, None))
                num_added += 1
            output = scheduler.schedule()
            in_flight.append((output, answer_to(scheduler, output)))
            if len(in_flight) > 1:
                scheduler.update_from_output(*in_flight.popleft())
        scrapes_s = []
        for _ in range(20):
            began_s = perf_counter()
            generate_latest(registry)
            scrapes_s.append(perf_counter() - began_s)
    return calls_s, float(np.median(scrapes_s))


def row(num_running: int) -> dict[str, float | str]:
    calls_s, scrape_s = measure(num_running)

    def us(calls: tuple[str, ...], quantile: float) -> float:
        return float(sum(1e6 * np.quantile(calls_s[name], quantile) for name in calls))

    shared = "shared in files" if "PROMETHEUS_MULTIPROC_DIR" in os.environ else "in one process"
    return {
        "metrics": shared,
        "running": num_running,
        "step_us": us(STEP, 0.1),
        "step_median_us": us(STEP, 0.5),
        "request_us": us(REQUEST, 0.1),
        "request_median_us": us(REQUEST, 0.5),
        "scrape_ms": 1e3 * scrape_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default=str(RESULTS / "metrics_cost.json"))
    parser.add_argument("--running", type=int, help="print the row of this many requests alone")
    options = parser.parse_args()
    if options.running:
        print(json.dumps(row(options.running)))
        return
    rows = []
    for shared in (False, True):
        for running in NUM_RUNNING:
            command = [sys.executable, __file__, "--running", str(running)]
            with tempfile.TemporaryDirectory() as folder:
                more = {"PROMETHEUS_MULTIPROC_DIR": folder} if shared else {}
                done = subprocess.run(
                    command, env=os.environ | more, stdout=subprocess.PIPE, check=True
                )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    path = Path(options.output)
    path.write_text(json.dumps({**provenance(), "rows": rows}, indent=1) + "\n")
    lines = [
        "| metrics | running | a step, us: lower decile | median | a request, us: lower decile "
        "| median | a scrape, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| {metrics} | {running} | {step_us:.1f} | {step_median_us:.1f} | {request_us:.1f} "
        "| {request_median_us:.1f} | {scrape_ms:.1f} |".format(**one)
        for one in rows
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if any(one["step_median_us"] > MOST_US for one in rows):
        sys.exit(f"a step costs more than {MOST_US:g} us")


if __name__ == "__main__":
    main()
