"""The commands of ``vllm-sarathi``."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm_sarathi.cli import options as given
from vllm_sarathi.cli import provenance, replayed
from vllm_sarathi.cli.calibrated import calibrated_limits
from vllm_sarathi.cli.checks import check_outputs
from vllm_sarathi.cli.files import write_files
from vllm_sarathi.cli.goals import goal_of, measured
from vllm_sarathi.cli.interrupts import ending_the_process
from vllm_sarathi.cli.progress import Watch
from vllm_sarathi.cli.runner import FAILED, Figures, run_engines
from vllm_sarathi.cli.tasks import (
    Progress,
    Scenario,
    Task,
    budgets,
    capacity_figures,
    figures_of,
    run_figures,
)
from vllm_sarathi.simulator.capacity import PRECISION
from vllm_sarathi.simulator.engine.scheduler_factory import load_vllm
from vllm_sarathi.simulator.plan.rows import rows
from vllm_sarathi.simulator.results import notes, tables
from vllm_sarathi.simulator.results.comparison import column
from vllm_sarathi.simulator.results.notes import ByEngine
from vllm_sarathi.simulator.run import quiet_vllm, simulate


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name; returns the exit code."""
    check_outputs(options)
    with quiet_vllm():
        return COMMANDS[options.command](options)


def _simulate(options: argparse.Namespace) -> int:
    scenario = given.scenario(options)
    (engine,) = given.engines(options, [options.engine])
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
    task = Task(scenario, engine, options.seed, has_bench=bool(options.bench_json))
    write_files(options, {engine.name: [figures_of(report, task)]})
    _say(options, tables.figures_table(figures), figures, origin)
    _warn(scenario, {engine.name: [figures]})
    if options.plots:
        from vllm_sarathi.simulator.results.plots import draw_run

        for path in draw_run(report, Path(options.plots), measured(options)):
            print(path, file=sys.stderr)
    return 0


def _compare(options: argparse.Namespace) -> int:
    scenario, *others = given.scenarios(options)
    engines = given.engines(options, options.engines)
    found, code = run_engines(options, run_figures, [scenario, *others], engines)
    write_files(options, found)
    text = "\n\n".join(
        (f"At {rate:g} requests/s:\n\n" if others else "") + tables.comparison_tables(runs)
        for rate, runs in (tables.by_rate(found) if others else {scenario.rate: found}).items()
    )
    _say(
        options,
        text,
        found,
        provenance.of_runs(options, scenario, engines, given.seeds_of(options)),
    )
    _warn(scenario, found)
    if options.plots:
        from vllm_sarathi.simulator.results.rate_plots import draw_rates

        path = Path(options.plots, "rates.png")
        print(draw_rates(found, path, measured(options)), file=sys.stderr)
    return code


def _capacity(options: argparse.Namespace) -> int:
    scenario, goal = given.scenario(options), goal_of(options)
    engines = given.engines(options, options.engines)
    found, code = run_engines(options, capacity_figures, [scenario], engines, goal)
    write_files(options, found)
    text = f"{tables.capacity_table(found)}\n\n{notes.on_capacities(found)}"
    origin = provenance.of_runs(options, scenario, engines, given.seeds_of(options), goal)
    _say(options, text, found, origin)
    _warn(scenario, found)
    if options.plots:
        from vllm_sarathi.simulator.results.rate_plots import draw_capacities

        print(draw_capacities(found, Path(options.plots, "capacity.png")), file=sys.stderr)
    return code


def _tune(options: argparse.Namespace) -> int:
    scenario, goal = given.scenario(options), goal_of(options)
    (stock,) = given.engines(options, ["stock"])
    engines = budgets(stock, options.budgets)
    found, code = run_engines(options, capacity_figures, [scenario], engines, goal)
    write_files(options, found)
    precision = options.precision or PRECISION
    best = best_engines(found, precision)
    level = f", which are level: within {precision:.0%}" if len(best) > 1 else ""
    text = (
        f"{tables.capacity_table(found)}\n\n{notes.on_capacities(found)}\n\n"
        f"best: {', '.join(best) or 'none meets the goal at any rate'}{level}"
    )
    origin = provenance.of_runs(options, scenario, engines, given.seeds_of(options), goal)
    _say(options, text, {"best": best, "budgets": found}, origin)
    _warn(scenario, found)
    return code or (0 if best else FAILED)


def _replay(options: argparse.Namespace) -> int:
    from vllm_sarathi.simulator.load.recording import read_recording
    from vllm_sarathi.simulator.results.recorded import LABEL, recorded_report

    replayed.check_words(options)
    recording = read_recording(options.steps)
    scenario = replayed.scenario(options, recording)
    workload = scenario.traffic.at(scenario.rate, options.seed)
    engines = replayed.engines(options, recording, workload)
    found, code = run_engines(options, run_figures, [scenario], engines)
    recorded = Task(scenario, engines[0], options.seed, has_bench=bool(options.bench_json))
    figures = figures_of(recorded_report(recording, workload), recorded)
    told: ByEngine = {LABEL: [figures], **found}
    write_files(options, told)
    same = next((engine for engine in engines if engine.label == replayed.SAME), None)
    text = f"{tables.replay_table(told)}\n\n{replayed.notes(recording, scenario, same)}"
    if same is not None:
        text += f"\n{notes.on_replay(told[LABEL], found[same.name])}"
    origin = provenance.of_runs(options, scenario, engines, given.seeds_of(options))
    _say(options, text, told, {**origin, "left_out": replayed.left_out(recording)})
    _warn(scenario, found)
    return code


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


def _plan(options: argparse.Namespace) -> int:
    from vllm_sarathi.cli.plan import plan
    from vllm_sarathi.cli.plan_text import text

    made, refused, prices = plan(options)
    found = {"options": rows(made), "not_possible": refused}
    _say(options, text(options, made, refused), found, provenance.of_plan(options, made, prices))
    if options.plots:
        from vllm_sarathi.simulator.plan.picture import draw_plan

        print(draw_plan(made, Path(options.plots) / "plan.png"), file=sys.stderr)
    return 0 if made.best else FAILED


def _calibrate(options: argparse.Namespace) -> int:
    from vllm_sarathi.simulator.machine.calibration import fit, read_steps

    limits = calibrated_limits(options)
    fitted = fit(read_steps(options.steps))
    deployment = fitted.deployment(options.name, *limits)
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
    "replay": _replay,
    "tune": _tune,
    "plan": _plan,
    "calibrate": _calibrate,
}


def _say(options: argparse.Namespace, text: str, results: Any, origin: Figures) -> None:
    """Print the table, or JSON instead of it or beside it in a file.

    The file comes first: whoever reads the table may leave in its midst.
    """
    as_json = json.dumps({"provenance": origin, "results": results}, indent=1, allow_nan=False)
    if options.json == "-":
        print(as_json)
        return
    if options.json:
        Path(options.json).write_text(as_json + "\n")
    print(text)


def _warn(scenario: Scenario, found: ByEngine) -> None:
    for line in notes.on_deployment(scenario.deployment, found):
        print(f"warning: {line}", file=sys.stderr)
