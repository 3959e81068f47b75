"""What ``goodput.py`` runs: an engine under a load, and what comes of the load's requests."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from statistics import fmean
from typing import Any, Protocol

import numpy as np
from rich.progress import track
from support.runs import Figures, Runs

from vllm_sarathi.simulator import (
    CapacityGoal,
    Deployment,
    EngineSettings,
    Objectives,
    Report,
    Workload,
    deployment,
    find_capacity,
    simulate,
)
from vllm_sarathi.simulator.load.traffic import Traffic
from vllm_sarathi.simulator.results.comparison import run_all

STEP_NOISE = 0.02
MAX_MODEL_LEN = 131_072
OURS_BUDGET = 8192


class Task(Protocol):
    """Something that is run once and has figures."""

    @property
    def key(self) -> str:
        """What tells its result from others: "part: case, engine, load, seed N"."""

    def run(self) -> Figures:
        """Run it."""


@dataclass(frozen=True, slots=True)
class Run:
    """An engine under a load.

    Args:
        case: the part and what tables call the case, with a colon between.
        load: what tables call the load.
        engine: the engine, with a label.
        machine: name of the deployment.
        traffic: the requests.
        rate: mean rate, in requests per second.
        objectives: of every request; None takes each class's own.
        seed: of traffic and noise.
        more: makes further figures of a report.
        max_model_len: most tokens of a request.
    """

    case: str
    load: str
    engine: EngineSettings
    machine: str
    traffic: Traffic
    rate: float
    objectives: Objectives | None = None
    seed: int = 0
    more: Callable[[Report], Figures] | None = None
    max_model_len: int = MAX_MODEL_LEN

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return f"{self.case}, {self.engine.name}, {self.load}, seed {self.seed}"

    @property
    def deployment(self) -> Deployment:
        """What serves."""
        return replace(deployment(self.machine), max_model_len=self.max_model_len)

    def run(self) -> Figures:
        """Run it."""
        workload = self.traffic.at(self.rate, self.seed)
        report = simulate(self.engine, self.deployment, workload, noise=STEP_NOISE, seed=self.seed)
        more = self.more(report) if self.more else {}
        return {
            **report.summary(),
            "seed": self.seed,
            **goodputs(report, self.objectives),
            **more,
        }


@dataclass(frozen=True, slots=True)
class Search:
    """A search for the rate that an engine holds.

    Args:
        run_at: the run, begun at its rate.
        goal: what has to hold.
        precision: of the rate.
    """

    run_at: Run
    goal: CapacityGoal
    precision: float = 0.02

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return self.run_at.key

    def run(self) -> Figures:
        """Search."""
        run = self.run_at
        found = find_capacity(
            run.engine,
            run.deployment,
            run.traffic,
            self.goal,
            seed=run.seed,
            noise=STEP_NOISE,
            start_rate=run.rate,
            precision=self.precision,
            steady=False,  # every search runs the load that its case describes
        )
        return found.summary()


def goodputs(report: Report, objectives: Objectives | None) -> Figures:
    """Shares of requests that meet their objectives and how many do in a second, by class too."""
    workload = report.workload
    met = in_time(report, objectives)
    figures: Figures = {
        "goodput": float(met.mean()),
        "goodput_rps": float(met.sum() / workload.arrival_s[-1]),
        "rate_rps": float(len(workload) / workload.arrival_s[-1]),
    }
    if len(workload.classes) == 1:
        return figures
    rows = report.per_request
    for index, qos in enumerate(workload.classes):
        members = workload.class_of == index
        figures[f"{qos.name}: goodput"] = float(met[members].mean())
        for percent in (50, 99):
            served = members & np.isfinite(rows.ttft_s)
            figures[f"{qos.name}: ttft_p{percent}_s"] = percentile(rows.ttft_s[served], percent)
            figures[f"{qos.name}: e2e_p{percent}_s"] = percentile(rows.e2e_s[served], percent)
    return figures


def in_time(report: Report, objectives: Objectives | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """For each request, whether it was served and met its objectives."""
    if objectives is not None:
        return report.met(objectives)
    workload: Workload = report.workload
    by_class = np.array([report.met(qos.objectives) for qos in workload.classes])
    chosen: np.ndarray[Any, np.dtype[np.bool_]] = by_class[
        workload.class_of, np.arange(len(workload))
    ]
    return chosen


def percentile(values: Any, percent: float) -> float | None:
    """A percentile; None of no values."""
    return float(np.percentile(values, percent)) if len(values) else None


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs tasks that have not been run.

    Args:
        runs: where figures are kept.
        num_jobs: processes.
        num_seeds: seeds of every run that a table shows.
    """

    runs: Runs
    num_jobs: int
    num_seeds: int

    def figures(self, tasks: Sequence[Task]) -> list[Figures]:
        """The figures of tasks, in their order."""
        todo = [task for task in tasks if task.key not in self.runs.figures]
        done = run_all(type(todo[0]).run, todo, self.num_jobs) if todo else ()
        for index, figures in track(done, "runs", total=len(todo)):
            self.runs.add(todo[index].key, figures)
        return [self.runs.figures[task.key] for task in tasks]

    def run_all(self, runs: Iterable[Run]) -> None:
        """Runs at every seed asked for, together: processes take seconds to start."""
        self.figures([replace(run, seed=seed) for run in runs for seed in range(self.num_seeds)])

    def over_seeds(self, run: Run) -> list[Figures]:
        """The figures of a run at every seed asked for, and at more that are known."""
        self.run_all([run])
        keys = (replace(run, seed=seed).key for seed in count())
        return [self.runs.figures[key] for key in takewhile(self.runs.figures.__contains__, keys)]


def mean(figures: Sequence[Figures], name: str) -> float:
    """A figure's mean over runs."""
    return fmean(run[name] for run in figures)


def ours(label: str, **settings: Any) -> EngineSettings:
    """Our scheduler with these settings."""
    return EngineSettings(
        "sarathi", settings, max_num_batched_tokens=OURS_BUDGET, max_num_seqs=256, label=label
    )


def stock(budget: int, seats: int, threshold: int) -> EngineSettings:
    """Stock vLLM with a static budget, a bound on running requests and one on long prompts."""
    return EngineSettings(
        max_num_batched_tokens=budget,
        max_num_seqs=seats,
        engine_args={"long_prefill_token_threshold": threshold},
        label=f"stock {budget}/{seats}/{threshold}",
    )


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
