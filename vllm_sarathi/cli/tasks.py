"""Units of work for ``comparison.run_watched``: they travel to another process and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vllm_sarathi.simulator.capacity import PRECISION, SearchProgress, find_capacity
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.load.traffic import Traffic
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.bench_json import bench_result
from vllm_sarathi.simulator.results.report import Report
from vllm_sarathi.simulator.run import reason, simulate

BENCH = "bench"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What every engine of a comparison faces.

    Args:
        deployment: what a step costs.
        traffic: the load.
        rate: requests per second; a first guess where capacity is searched.
        num_requests: how many; at least so many where capacity is searched.
        noise: standard deviation of every step's time, as a share of it.
        limit_s: virtual time at which a run ends at the latest; None as ``simulate``.
    """

    deployment: Deployment
    traffic: Traffic
    rate: float
    num_requests: int
    noise: float = 0.0
    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One engine with one seed in a scenario.

    Args:
        has_bench: whether its figures hold those of ``vllm bench serve`` too, as ``BENCH``.
    """

    scenario: Scenario
    engine: EngineSettings
    seed: int
    goal: CapacityGoal | None = None
    precision: float = PRECISION
    has_bench: bool = False


class Progress(NamedTuple):
    """How far a task is.

    Args:
        share: how much of it is done; 0 where nobody knows.
        text: the same in words.
    """

    share: float
    text: str


Tell = Callable[[Progress], object]


def run_figures(task: Task, tell: Tell) -> dict[str, Any]:
    """Run once at the scenario's rate; the figures."""
    scenario = task.scenario
    report = simulate(
        task.engine,
        scenario.deployment,
        scenario.traffic.at(scenario.rate, task.seed),
        noise=scenario.noise,
        seed=task.seed,
        limit_s=scenario.limit_s,
        on_progress=lambda share: tell(Progress(share, f"{share:.0%}")),
    )
    return figures_of(report, task)


def figures_of(report: Report, task: Task) -> dict[str, Any]:
    """The figures of a run, with what tells it from others."""
    rate = task.scenario.rate
    figures = {**report.summary(), "seed": task.seed, "rate_rps": rate}
    return figures | _bench(task, rate, report)


def capacity_figures(task: Task, tell: Tell) -> dict[str, Any]:
    """Search for the capacity; the figures."""
    if task.goal is None:
        raise ValueError("goal=None: a capacity search needs one")

    def in_words(search: SearchProgress) -> None:
        run = f"run {search.num_runs + 1} at {search.rate:.4g} requests/s, {search.share:.0%}"
        tell(Progress(0.0, run))

    scenario = task.scenario
    found = find_capacity(
        task.engine,
        scenario.deployment,
        scenario.traffic,
        task.goal,
        seed=task.seed,
        noise=scenario.noise,
        start_rate=scenario.rate,
        limit_s=scenario.limit_s,
        precision=task.precision,
        on_progress=in_words,
    )
    return found.summary() | _bench(task, found.rate, found.report)


def _bench(task: Task, rate: float, report: Report | None) -> dict[str, Any]:
    """The run in vLLM's keys, where they are asked for."""
    if not task.has_bench or report is None:
        return {}
    scenario = task.scenario
    return {BENCH: bench_result(report, scenario.deployment, scenario.traffic, rate, task.seed)}


def attempt(
    function: Callable[[Task, Tell], dict[str, Any]], task: Task, tell: Tell
) -> dict[str, Any]:
    """Run a task; where that fails say why instead, for the other engines go on."""
    try:
        return function(task, tell)
    except Exception as error:  # whatever a scheduler of the user's own may raise
        where = {"label": task.engine.name, "seed": task.seed, "rate_rps": task.scenario.rate}
        return {**where, "error": reason(error)}


def budgets(engine: EngineSettings, tokens: tuple[int, ...]) -> list[EngineSettings]:
    """The same engine with each of several static token budgets."""
    return [replace(engine, max_num_batched_tokens=budget, label=None) for budget in tokens]
