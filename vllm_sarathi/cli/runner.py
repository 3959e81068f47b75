"""Many engines with many seeds, in processes of their own."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vllm_sarathi.cli.interrupts import ending_the_process
from vllm_sarathi.cli.options import seeds_of
from vllm_sarathi.cli.progress import Watch
from vllm_sarathi.cli.tasks import Scenario, Task, Tell, attempt
from vllm_sarathi.simulator.capacity import PRECISION
from vllm_sarathi.simulator.engine.scheduler_factory import load_vllm
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.results.comparison import default_num_jobs, run_watched
from vllm_sarathi.simulator.results.notes import ByEngine

Figures = dict[str, Any]
FAILED, INTERRUPTED = 1, 130


def run_engines(
    options: argparse.Namespace,
    function: Callable[[Task, Tell], Figures],
    scenarios: Sequence[Scenario],
    engines: Sequence[EngineSettings],
    goal: CapacityGoal | None = None,
) -> tuple[ByEngine, int]:
    """Run every engine in every scenario with every seed; what an interrupt left is None.

    Returns:
        Each engine's figures, scenario by scenario and seed by seed, and the exit code.
    """
    precision = getattr(options, "precision", None) or PRECISION
    seeds = seeds_of(options)
    tasks = [
        Task(scenario, engine, seed, goal, precision, bool(options.bench_json))
        for scenario in scenarios
        for seed in seeds
        for engine in engines
    ]
    jobs = options.jobs or default_num_jobs()
    if jobs == 1 or len(tasks) == 1:
        with ending_the_process():
            load_vllm()
    results: list[Figures | None] = [None] * len(tasks)
    code = 0
    watch = Watch([_name(task, len(scenarios) > 1) for task in tasks])
    try:
        run = partial(attempt, function)
        for index, figures in run_watched(run, tasks, jobs, watch.told):
            results[index] = figures
            watch.done(index)
            if "error" in figures:
                code = FAILED
                watch.say(f"{watch.names[index]}: {figures['error']}")
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        watch.close()
    by_engine: ByEngine = {engine.name: [] for engine in engines}
    for task, result in zip(tasks, results, strict=True):
        by_engine[task.engine.name].append(result)
    return by_engine, code


def _name(task: Task, has_rate: bool) -> str:
    """What the progress calls a task."""
    rate = f", {task.scenario.rate:g} requests/s" if has_rate else ""
    return f"{task.engine.name}{rate}, seed {task.seed}"
