"""The commands of ``vllm-sarathi``."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vllm_sarathi.cli import options as given
from vllm_sarathi.cli import provenance
from vllm_sarathi.cli.interrupts import ending_the_process
from vllm_sarathi.cli.progress import Watch
from vllm_sarathi.cli.tasks import (
    Progress,
    Scenario,
    Task,
    Tell,
    attempt,
    budgets,
    capacity_figures,
    run_figures,
)
from vllm_sarathi.simulator.capacity import PRECISION
from vllm_sarathi.simulator.engine.scheduler_factory import load_vllm
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.results import notes, tables
from vllm_sarathi.simulator.results.comparison import column, default_num_jobs, run_watched
from vllm_sarathi.simulator.results.notes import ByEngine
from vllm_sarathi.simulator.run import quiet_vllm, simulate

Figures = dict[str, Any]
FAILED, INTERRUPTED = 1, 130


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name; returns the exit code."""
    given.check_outputs(options)
    with quiet_vllm():
        return COMMANDS[options.command](options)


def _simulate(options: argparse.Namespace) -> int:
    scenario = given.scenario(options)
    (engine,) = given.engines(options, [options.scheduler])
    watch = Watch([engine.name])
    with ending_the_process():
        load_vllm()
    report = simulate(
        engine,
        scenario.deployment,
        scenario.traffic.at(scenario.rate, options.seed),
        noise=scenario.noise,
        seed=options.seed,
        limit_s=scenario.limit_s,
        keep_steps=bool(options.plots),
        on_progress=lambda share: watch.told(0, Progress(share, f"{share:.0%}")),
    )
    watch.done(0)
    watch.close()
    origin = provenance.of_runs(options, scenario, [engine], [options.seed])
    figures = report.summary()
    _say(options, tables.figures_table(figures), figures, origin)
    _warn(scenario, {engine.name: [figures]})
    if options.plots:
        from vllm_sarathi.simulator.results.plots import draw_run

        for path in draw_run(report, Path(options.plots), given.objectives(options)):
            print(path, file=sys.stderr)
    return 0


def _compare(options: argparse.Namespace) -> int:
    scenario = given.scenario(options)
    engines = given.engines(options, options.schedulers)
    found, code = _run(options, run_figures, scenario, engines)
    text = tables.comparison_table(found)
    if len(found) > 1:
        text += "\n\n" + tables.ratio_table(found)
    _say(options, text, found, provenance.of_runs(options, scenario, engines, _seeds(options)))
    _warn(scenario, found)
    return code


def _capacity(options: argparse.Namespace) -> int:
    scenario, goal = given.scenario(options), given.goal(options)
    engines = given.engines(options, options.schedulers)
    found, code = _run(options, capacity_figures, scenario, engines, goal)
    text = f"{tables.capacity_table(found)}\n\n{notes.on_capacities(found)}"
    origin = provenance.of_runs(options, scenario, engines, _seeds(options), goal)
    _say(options, text, found, origin)
    _warn(scenario, found)
    return code


def _tune(options: argparse.Namespace) -> int:
    scenario, goal = given.scenario(options), given.goal(options)
    (stock,) = given.engines(options, ["stock"])
    engines = budgets(stock, options.budgets)
    found, code = _run(options, capacity_figures, scenario, engines, goal)
    precision = options.precision or PRECISION
    best = best_engines(found, precision)
    level = f", which are level: within {precision:.0%}" if len(best) > 1 else ""
    text = (
        f"{tables.capacity_table(found)}\n\n{notes.on_capacities(found)}\n\n"
        f"best: {', '.join(best) or 'none meets the goal at any rate'}{level}"
    )
    origin = provenance.of_runs(options, scenario, engines, _seeds(options), goal)
    _say(options, text, {"best": best, "budgets": found}, origin)
    _warn(scenario, found)
    return code or (0 if best else FAILED)


def best_engines(found: ByEngine, precision: float) -> list[str]:
    """The engines whose mean capacity is the highest, as closely as it was searched for.

    Empty if none holds at any rate.
    """
    means = {
        name: sum(rates) / len(rates)
        for name, runs in found.items()
        if (rates := [rate for rate in column(runs, "capacity_rps") if rate is not None])
    }
    most = max(means.values(), default=0.0)
    return [name for name, mean in means.items() if mean and most <= mean * (1 + precision)]


def _calibrate(options: argparse.Namespace) -> int:
    from vllm_sarathi.simulator.machine.calibration import fit, read_steps
    from vllm_sarathi.simulator.machine.step_cost import check_kv_tokens

    check_kv_tokens(options.kv_tokens, options.max_model_len)
    fitted = fit(read_steps(options.steps))
    deployment = fitted.deployment(options.name, options.kv_tokens, options.max_model_len)
    origin = {**provenance.of_command(options), "steps": provenance.of_file(options.steps)}
    written = {**deployment.to_json(), "provenance": origin}
    Path(options.output).write_text(json.dumps(written, indent=1) + "\n")
    text = tables.figures_table(fitted.figures()) + "\n\n" + notes.on_range(fitted.largest_step)
    _say(options, text, fitted.figures(), origin)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "simulate": _simulate,
    "compare": _compare,
    "capacity": _capacity,
    "tune": _tune,
    "calibrate": _calibrate,
}


def _seeds(options: argparse.Namespace) -> range:
    """Seeds of the runs. Without noise a recorded load is the same with every seed."""
    num_seeds = 1 if options.trace and not options.noise else options.seeds
    return range(options.seed, options.seed + num_seeds)


def _run(
    options: argparse.Namespace,
    function: Callable[[Task, Tell], Figures],
    scenario: Scenario,
    engines: Sequence[EngineSettings],
    goal: CapacityGoal | None = None,
) -> tuple[ByEngine, int]:
    """Run every engine with every seed; what an interrupt left unfinished is None.

    Returns:
        Each engine's figures, seed by seed, and the exit code.
    """
    precision = getattr(options, "precision", None) or PRECISION
    seeds = _seeds(options)
    tasks = [Task(scenario, engine, seed, goal, precision) for seed in seeds for engine in engines]
    jobs = options.jobs or default_num_jobs()
    if jobs == 1 or len(tasks) == 1:
        with ending_the_process():
            load_vllm()
    results: list[Figures | None] = [None] * len(tasks)
    code = 0
    watch = Watch([f"{task.engine.name}, seed {task.seed}" for task in tasks])
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


def _say(options: argparse.Namespace, text: str, results: Any, origin: Figures) -> None:
    """Print the table, or JSON instead of it or beside it in a file."""
    as_json = json.dumps({"provenance": origin, "results": results}, indent=1, allow_nan=False)
    if options.json == "-":
        print(as_json)
        return
    print(text)
    if options.json:
        Path(options.json).write_text(as_json + "\n")


def _warn(scenario: Scenario, found: ByEngine) -> None:
    for line in notes.on_deployment(scenario.deployment, found):
        print(f"warning: {line}", file=sys.stderr)
