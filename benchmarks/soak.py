"""Memory over a million requests: objectives, aborts, relegation and metrics, no model.

Requests are short, so that most of the time goes to what each leaves behind, if anything.

Run ``python benchmarks/soak.py``: writes results/soak.json and prints the memory as it goes.
"""

import argparse
import json
import os
import random
from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Any

from support.made_up_model import answer_to
from support.provenance import provenance

from vllm_sarathi import AsyncSarathiScheduler
from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine
from vllm_sarathi.simulator.run import quiet_vllm

RESULTS = Path(__file__).parent / "results"
NUM_OUTSTANDING = 300
ABORTED = 0.05
ASKS: tuple[dict[str, Any], ...] = (
    {},
    {"qos": "batch"},
    {"qos": "interactive", "session_id": "a"},
    {"ttft_slo_ms": 2, "tpot_slo_ms": 30},
    {"tbt_slo_ms": 20, "e2e_slo_ms": 5000},
)
SETTINGS = {"ttft_slo_ms": 200, "tpot_slo_ms": 20}


class Counted(AsyncSarathiScheduler):
    """With metrics, which the simulator leaves out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "log_stats": True})


def memory_mib() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def serve(scheduler: Any, num_requests: int, every: int) -> list[list[float]]:
    """Serve so many requests; thousands of them so far, MiB, steps and seconds, now and then."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request, RequestStatus

    rng, rows, num_added, num_steps = random.Random(0), [], 0, 0
    in_flight: deque[Any] = deque()
    began_s = perf_counter()
    while num_added < num_requests or scheduler.has_unfinished_requests():
        while num_added < num_requests and len(scheduler.requests) < NUM_OUTSTANDING:
            asked = dict(rng.choice(ASKS))
            params = SamplingParams(max_tokens=rng.randint(1, 4), ignore_eos=True, extra_args=asked)
            name = f"r{num_added}"
            scheduler.add_request(Request(name, [1] * rng.randint(4, 64), params, None))
            num_added += 1
            if rng.random() < ABORTED:
                aborted = rng.choice(list(scheduler.requests))
                scheduler.finish_requests(aborted, RequestStatus.FINISHED_ABORTED)
            if num_added % every == 0:
                rows.append([num_added, memory_mib(), num_steps, perf_counter() - began_s])
                print("{:>9,} requests {:8.1f} MiB {:>9,} steps {:7.0f} s".format(*rows[-1]))
        output = scheduler.schedule()
        in_flight.append((output, answer_to(scheduler, output)))
        if len(in_flight) > 1 or not output.total_num_scheduled_tokens:
            scheduler.update_from_output(*in_flight.popleft())
        num_steps += 1
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--output", default=str(RESULTS / "soak.json"))
    options = parser.parse_args()
    settings = EngineSettings(
        "soak.Counted", SETTINGS, max_num_seqs=128, max_num_batched_tokens=8192,
        async_scheduling=True,
    )  # fmt: skip
    with quiet_vllm(), gpu_engine(settings, 1, 20_000, 8192) as (scheduler, _):
        rows = serve(scheduler, options.requests, max(options.requests // 20, 1))
    keys = ("requests", "memory_mib", "steps", "seconds")
    held = [dict(zip(keys, row, strict=True)) for row in rows]
    Path(options.output).write_text(json.dumps({**provenance(), "rows": held}, indent=1) + "\n")


if __name__ == "__main__":
    main()
