"""The commands of ``vllm-sarathi``."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vllm_sarathi.cli import options as given
from vllm_sarathi.cli.tasks import (
    Scenario,
    Task,
    attempt,
    budgets,
    capacity_figures,
    run_figures,
)
from vllm_sarathi.simulator.capacity import PRECISION, CapacityGoal
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.results import tables
from vllm_sarathi.simulator.results.comparison import column, default_num_jobs, run_all
from vllm_sarathi.simulator.run import quiet_vllm, simulate

Figures = dict[str, Any]
ByEngine = dict[str, list[Figures | None]]
FAILED, INTERRUPTED = 1, 130


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name; returns the exit code."""
    given.check_outputs(options)
    with quiet_vllm():
        return COMMANDS[options.command](options)


def _simulate(options: argparse.Namespace) -> int:
    if options.plots:  # before the run, for it may not be installed
        from vllm_sarathi.simulator.results.plots import draw_run
    scenario = given.scenario(options)
    (engine,) = given.engines(options, [options.scheduler])
    report = simulate(
        engine,
        scenario.deployment,
        scenario.traffic.at(scenario.rate, options.seed),
        noise=scenario.noise,
        seed=options.seed,
        limit_s=scenario.limit_s,
        keep_steps=bool(options.plots),
    )
    _say(options, tables.figures_table(report.summary()), report.summary())
    if options.plots:
        for path in draw_run(report, Path(options.plots)):
            print(path, file=sys.stderr)
    return 0


def _compare(options: argparse.Namespace) -> int:
    scenario = given.scenario(options)
    engines = given.engines(options, options.schedulers)
    found, code = _run(options, run_figures, scenario, engines, None)
    text = tables.comparison_table(found)
    if len(found) > 1:
        text += "\n\n" + tables.ratio_table(found)
    _say(options, text, found)
    return code


def _capacity(options: argparse.Namespace) -> int:
    scenario, goal = given.scenario(options), given.goal(options)
    engines = given.engines(options, options.schedulers)
    found, code = _run(options, capacity_figures, scenario, engines, goal)
    _say(options, tables.capacity_table(found), found)
    return code


def _tune(options: argparse.Namespace) -> int:
    scenario, goal = given.scenario(options), given.goal(options)
    (stock,) = given.engines(options, ["stock"])
    engines = budgets(stock, options.budgets)
    found, code = _run(options, capacity_figures, scenario, engines, goal)
    best = best_engine(found)
    text = tables.capacity_table(found) + f"\n\nbest: {best or 'none meets the goal at any rate'}"
    _say(options, text, {"best": best, "budgets": found})
    return code


def best_engine(found: ByEngine) -> str | None:
    """The engine with the highest mean capacity; None if none holds at any rate."""
    means = {
        name: sum(rates) / len(rates)
        for name, runs in found.items()
        if (rates := [rate for rate in column(runs, "capacity_rps") if rate is not None])
    }
    best = max(means, key=means.__getitem__, default=None)
    return best if best is not None and means[best] else None


def _calibrate(options: argparse.Namespace) -> int:
    from vllm_sarathi.simulator.machine.calibration import fit, read_steps

    fitted = fit(read_steps(options.steps))
    deployment = fitted.deployment(options.name, options.kv_tokens, options.max_model_len)
    Path(options.output).write_text(json.dumps(deployment.to_json(), indent=1) + "\n")
    _say(options, tables.figures_table(fitted.figures()), fitted.figures())
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "simulate": _simulate,
    "compare": _compare,
    "capacity": _capacity,
    "tune": _tune,
    "calibrate": _calibrate,
}


def _run(
    options: argparse.Namespace,
    function: Callable[[Task], Figures],
    scenario: Scenario,
    engines: Sequence[EngineSettings],
    goal: CapacityGoal | None,
) -> tuple[ByEngine, int]:
    """Run every engine with every seed; what an interrupt left unfinished is None.

    Returns:
        Each engine's figures, seed by seed, and the exit code.
    """
    precision = getattr(options, "precision", None) or PRECISION
    # Without noise a recorded load is the same with every seed.
    num_seeds = 1 if options.trace and not options.noise else options.seeds
    seeds = range(options.seed, options.seed + num_seeds)
    tasks = [Task(scenario, engine, seed, goal, precision) for seed in seeds for engine in engines]
    results: list[Figures | None] = [None] * len(tasks)
    code = 0
    with tqdm(total=len(tasks), unit="run", disable=None, file=sys.stderr) as progress:
        try:
            jobs = options.jobs or default_num_jobs()
            run = partial(attempt, function)
            for index, figures in run_all(run, tasks, jobs, progress.update):
                results[index] = figures
                progress.set_postfix_str(tasks[index].engine.name)
                if "error" in figures:
                    code = FAILED
                    text = f"{figures['label']}, seed {figures['seed']}: {figures['error']}"
                    progress.write(text, file=sys.stderr)
        except KeyboardInterrupt:
            code = INTERRUPTED
    by_engine: ByEngine = {engine.name: [] for engine in engines}
    for task, result in zip(tasks, results, strict=True):
        by_engine[task.engine.name].append(result)
    return by_engine, code


def _say(options: argparse.Namespace, text: str, figures: Any) -> None:
    """Print the table, or JSON instead of it or beside it in a file."""
    as_json = json.dumps(figures, indent=1, allow_nan=False)
    if options.json == "-":
        print(as_json)
        return
    print(text)
    if options.json:
        Path(options.json).write_text(as_json + "\n")
