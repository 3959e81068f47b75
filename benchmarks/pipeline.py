"""Pipelines in virtual time: our micro-batches beside every static budget of stock vLLM.

GPT-3 on A100, tensor parallel over eight GPUs, on 2, 4 and 8 pipeline stages; all requests
at once, so that throughput is what the pipeline can do. Two loads are those of vLLM's own reports
on four stages: prompts of 128K with one output token (issue 41682), and requests that hardly do
anything but decode (pull request 57433). Results are written as they come; ``--resume`` takes up a
run that was interrupted.
"""

import argparse
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from support.runs import Runs, add_arguments

from vllm_sarathi.simulator import (
    EngineSettings,
    Fixed,
    Report,
    Synthetic,
    Workload,
    Zipf,
    deployment,
    read_trace,
    simulate,
)
from vllm_sarathi.simulator.results.comparison import default_num_jobs
from vllm_sarathi.simulator.results.plots import draw_stages

RESULTS = Path(__file__).parent / "results"
STAGES = (2, 4, 8)
PD_RATIOS = (1, 10, 50)
STATIC_BUDGETS = ("256", "512", "1024", "2048", "4096", "8192")
OURS, UNCHUNKED = "sarathi", "unchunked"
ENGINES = (UNCHUNKED, *STATIC_BUDGETS, OURS)
MAX_MODEL_LEN = 16384


@dataclass(frozen=True, slots=True)
class Reported:
    """A load of vLLM's reports.

    Args:
        lengths: of its requests.
        num_requests: how many.
        max_model_len: that they need; unchunked, it is the budget too.
    """

    lengths: Zipf | Fixed
    num_requests: int
    max_model_len: int = MAX_MODEL_LEN


REPORTED_STAGES = 4
REPORTED = {
    "decode-heavy": Reported(Zipf(0.1), 200),
    "128K in and 1 out": Reported(Fixed(131_072, 1), 24, 131_200),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """An engine with a workload on so many stages."""

    engine: str
    num_stages: int
    load: str
    num_requests: int
    trace: Path | None = None

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return f"PP {self.num_stages}, {self.load}, {self.engine}, {self.num_requests} requests"

    @property
    def max_model_len(self) -> int:
        """Tokens of a request at most."""
        return REPORTED[self.load].max_model_len if self.load in REPORTED else MAX_MODEL_LEN

    def settings(self) -> EngineSettings:
        """How the engine is set up; ours is told no objective."""
        if self.engine == OURS:
            ours = {"tbt_slo_ms": None}
            return EngineSettings("sarathi", ours, max_num_batched_tokens=8192, label="sarathi")
        budget = self.max_model_len if self.engine == UNCHUNKED else int(self.engine)
        whole = {"enable_chunked_prefill": False} if self.engine == UNCHUNKED else {}
        label = f"stock, {self.engine}"
        return EngineSettings(max_num_batched_tokens=budget, engine_args=whole, label=label)

    def workload(self) -> Workload:
        """All requests at time 0."""
        if self.trace is not None:
            recorded = read_trace(self.trace, self.num_requests)
            return recorded.at_times(np.zeros(len(recorded)))
        if self.load in REPORTED:
            lengths = REPORTED[self.load].lengths
        else:
            lengths = Zipf(float(self.load.removeprefix("P:D ")))
        return Synthetic(lengths, self.num_requests, at_once=True).at(1, 0)

    def simulate(self, keep_steps: bool = False) -> Report:
        """Run it."""
        machine = deployment("a100-gpt-3-tp8-pp8", self.num_stages)
        machine = replace(machine, max_model_len=self.max_model_len)
        return simulate(self.settings(), machine, self.workload(), keep_steps=keep_steps)

    def figures(self) -> dict[str, Any]:
        """Run it."""
        return self.simulate().summary()


def table(cases: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Markdown: output tokens per second, stage time idle, and the ratios.

    Not all tokens: those that a preemption makes stock vLLM compute twice are no gain.
    """
    head = ["stages, load", *ENGINES, "to best static", "to 2048", "bubble to unchunked, 2048"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case, found in cases.items():
        if set(found) != set(ENGINES):
            continue
        rate = {name: figures["output_tokens_per_s"] for name, (figures,) in found.items()}
        idle = {name: figures["stage_idle_share"] for name, (figures,) in found.items()}
        best = max(rate[budget] for budget in STATIC_BUDGETS)
        cells = [case]
        digits = 0 if best >= 10 else 3
        cells += [f"{rate[name]:.{digits}f} ({idle[name]:.0%})" for name in ENGINES]
        cells += [f"{rate[OURS] / best:.3f}", f"{rate[OURS] / rate['2048']:.2f}"]
        cells.append(f"1/{idle[UNCHUNKED] / idle[OURS]:.1f}, 1/{idle['2048'] / idle[OURS]:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_pictured(path: Path) -> None:
    """Draw one second of eight stages under stock vLLM's usual budget and ours."""
    pictured = [Cell(engine, 8, "P:D 10", 600) for engine in ("2048", OURS)]
    reports = [cell.simulate(keep_steps=True) for cell in pictured]
    draw_stages(reports, path, start_s=40.0, span_s=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, metavar="N")
    parser.add_argument("--trace", type=Path, metavar="CSV", help="one more load: its lengths")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--stages", nargs="+", type=int, default=STAGES, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "pipeline.json")
    arguments = parser.parse_args()
    loads = [(f"P:D {ratio}", None) for ratio in PD_RATIOS]
    if arguments.trace:
        loads.append((arguments.trace.stem, arguments.trace))
    cells = [
        Cell(engine, stages, load, arguments.requests, trace)
        for stages, (load, trace), engine in product(arguments.stages, loads, ENGINES)
        if engine in arguments.engines
    ]
    cells += [
        Cell(engine, REPORTED_STAGES, name, load.num_requests)
        for (name, load), engine in product(REPORTED.items(), ENGINES)
        if engine in arguments.engines
    ]
    runs = Runs(arguments.output, [cell.key for cell in cells], arguments.resume)
    runs.measure(Cell.figures, cells, arguments.jobs)
    runs.write_table(table(runs.by_case()))
    draw_pictured(arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
