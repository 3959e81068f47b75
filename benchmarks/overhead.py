"""What our scheduler costs the engine loop: schedule() and update_from_output() beside stock's.

Stock, ours with nothing set and ours with objectives take turns at the same decodes, with requests
waiting behind them, so that a noisy machine is noisy for all. No model runs. Quoted is the lower
decile of a step's time, for what else the machine does only adds to it.

Run ``python benchmarks/overhead.py``: writes results/overhead.json and overhead.md.
"""

import argparse
import json
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from support.made_up_model import answer_to
from support.provenance import provenance

from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine
from vllm_sarathi.simulator.run import quiet_vllm

RESULTS = Path(__file__).parent / "results"
CASES = ((16, 0), (256, 0), (256, 10_000), (1000, 0))  # running, waiting
OBJECTIVES = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50}
PROMPT_TOKENS = 64
STEPS_PER_TURN, TURNS = 25, 12


@dataclass(slots=True)
class Loop:
    """One scheduler and the batches that it has in flight."""

    scheduler: Any
    max_in_flight: int
    in_flight: deque[Any] = field(default_factory=deque)
    times_s: list[float] = field(default_factory=list)

    def step(self, is_timed: bool) -> None:
        """Schedule one batch, answer the oldest."""
        began_s = perf_counter()
        output = self.scheduler.schedule()
        scheduled_s = perf_counter() - began_s
        self.in_flight.append((output, answer_to(self.scheduler, output)))
        if len(self.in_flight) < self.max_in_flight:
            return
        oldest, answer = self.in_flight.popleft()
        began_s = perf_counter()
        self.scheduler.update_from_output(oldest, answer)
        if is_timed:
            self.times_s.append(scheduled_s + perf_counter() - began_s)


def measure(is_async: bool, num_running: int, num_waiting: int) -> list[float]:
    """Milliseconds a step takes under stock, ours with nothing set, and ours with objectives."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    with ExitStack() as stack:
        loops = []
        for name, ours in (("stock", {}), ("sarathi", {}), ("sarathi", OBJECTIVES)):
            settings = EngineSettings(
                name,
                ours,
                max_num_batched_tokens=8192,
                max_num_seqs=num_running,
                async_scheduling=is_async,
            )
            scheduler, config = stack.enter_context(gpu_engine(settings, 1, 4_000_000, 8192))
            for i in range(num_running + num_waiting):
                params = SamplingParams(max_tokens=8000, ignore_eos=True)
                scheduler.add_request(Request(f"{i}", [1] * PROMPT_TOKENS, params, None))
            loops.append(Loop(scheduler, config.max_concurrent_batches))
        for loop in loops:
            while len(loop.scheduler.running) < num_running or any(
                request.is_prefill_chunk for request in loop.scheduler.running
            ):
                loop.step(False)
            for _ in range(50):
                loop.step(False)
        for _ in range(TURNS):
            for loop in loops:
                for _ in range(STEPS_PER_TURN):
                    loop.step(True)
    return [float(np.quantile(loop.times_s, 0.1)) * 1e3 for loop in loops]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default=str(RESULTS / "overhead.json"))
    path = Path(parser.parse_args().output)
    rows = []
    lines = [
        "| scheduling | running | waiting | stock, ms | nothing set / stock | objectives / stock |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    with quiet_vllm():
        for is_async in (False, True):
            for running, waiting in CASES:
                times_ms = measure(is_async, running, waiting)
                stock, ours, with_objectives = times_ms
                name = "asynchronous" if is_async else "synchronous"
                rows.append([name, running, waiting, *times_ms])
                lines.append(
                    f"| {name} | {running} | {waiting:,} | {stock:.3f} | {ours / stock:.2f} "
                    f"| {with_objectives / stock:.2f} |"
                )
                print(lines[-1], flush=True)
    path.write_text(json.dumps({**provenance(), "rows": rows}, indent=1) + "\n")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
