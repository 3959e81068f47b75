"""What a JSON file needs so that its figures can be made again."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vllm_sarathi import __version__
from vllm_sarathi.cli.goals import objectives
from vllm_sarathi.cli.options import DEFAULT_WORKLOAD
from vllm_sarathi.cli.tasks import Scenario
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.machine.prices import Price
from vllm_sarathi.simulator.plan.plan import Plan


def of_command(options: argparse.Namespace) -> dict[str, Any]:
    """The command, and the versions that decide what it does."""
    versions = {name: version(name) for name in ("vllm", "numpy")}
    return {
        "command": options.command_line,
        "versions": {"vllm-sarathi": __version__, **versions},
    }


def of_runs(
    options: argparse.Namespace,
    scenario: Scenario,
    engines: Sequence[EngineSettings],
    seeds: Iterable[int],
    goal: CapacityGoal | None = None,
) -> dict[str, Any]:
    """As ``of_command``, with all that the runs were given: defaults and files too."""
    return {
        **of_command(options),
        "engines": {engine.name: asdict(engine) for engine in engines},
        "deployment": scenario.deployment.to_json(),
        "load": _load(options, scenario.num_requests, scenario.rate),
        "seeds": list(seeds),
        "noise": scenario.noise,
        "limit_s": scenario.limit_s,
        **({} if goal is None else {"goal": asdict(goal)}),
    }


def of_plan(options: argparse.Namespace, plan: Plan, prices: Mapping[str, Price]) -> dict[str, Any]:
    """As ``of_command``, with all that a plan was given."""
    demand = plan.demand
    num_requests = len(demand.traffic.at(demand.rate, demand.seeds[0]))
    engines = {choice.engine.name: asdict(choice.engine) for choice in plan.choices}
    return {
        **of_command(options),
        "model": options.model,
        "prices": {name: asdict(price) for name, price in prices.items()},
        "engines": engines,
        "load": _load(options, num_requests, demand.rate),
        "router": demand.router,
        "seeds": list(demand.seeds),
        "noise": demand.noise,
        "goal": asdict(demand.goal),
    }


def of_file(path: str) -> dict[str, str]:
    """A file by its name and what it holds."""
    return {"file": path, "sha256": sha256(Path(path).read_bytes()).hexdigest()}


def _load(options: argparse.Namespace, num_requests: int, rate: float) -> dict[str, Any]:
    at_once = getattr(options, "at_once", False)
    source: dict[str, Any]
    if options.command == "replay":
        source = {"step_log": of_file(options.steps)}
    elif options.trace:
        source = {
            "trace": of_file(options.trace),
            # None: the file's form tells.
            "trace_time_unit_s": options.trace_time_unit_s,
            "trace_hash_tokens": options.trace_hash_tokens,
        }
    else:
        source = {
            "workload": options.workload or DEFAULT_WORKLOAD,
            "cv": 1.0 if options.cv is None else options.cv,
            "shape": options.shape or "steady",
            "at_once": at_once,
        }
    return {
        **source,
        "requests": num_requests,
        "rate_rps": None if at_once else getattr(options, "rates", None) or rate,
        "objectives": asdict(objectives(options)),
    }
