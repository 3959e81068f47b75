"""One run of a plan: so many replicas under a load, and whether the goal is met."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from inspect import getsourcefile
from pathlib import Path
from typing import Any

import numpy as np

from vllm_sarathi import __version__
from vllm_sarathi.simulator.engine.fleet import Router
from vllm_sarathi.simulator.engine.scheduler_factory import scheduler_class
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.load.share import RoundRobinShare
from vllm_sarathi.simulator.load.traffic import Synthetic, Traffic
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.report import Report
from vllm_sarathi.simulator.run import simulate
from vllm_sarathi.simulator.steady import longer_load

# Replicas behind a router that looks at their load run together: so many stand for more, among
# which such a router would find a free one more often.
MOST_TOGETHER = 4
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Demand:
    """What has to be served, and how it is simulated.

    Args:
        traffic: the load; a drawn one has at least so many requests for each replica.
        rate: requests per second of all replicas together.
        goal: what has to hold.
        router: which replica gets a request.
        seeds: of the load and the noise; the goal has to hold with each.
        noise: standard deviation of a step's time, as a share of it.
    """

    traffic: Traffic
    rate: float
    goal: CapacityGoal
    router: Router = "round-robin"
    seeds: tuple[int, ...] = (0,)
    noise: float = 0.0

    @cached_property
    def digest(self) -> dict[str, Any]:
        """What the load holds, in short, and what else decides what becomes of it."""
        workload = self.traffic.at(self.rate, self.seeds[0])
        lengths = [getattr(workload.lengths, one.name) for one in fields(workload.lengths)]
        return {
            "load": [_digest(part) for part in (workload.arrival_s, workload.class_of, *lengths)],
            "classes": [asdict(qos) for qos in workload.classes],
            "goal": asdict(self.goal),
            "demand": [self.rate, self.router, self.seeds, self.noise],
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """Replicas of a deployment that face the demand.

    Args:
        demand: what has to be served.
        deployment: each replica.
        engine: the scheduler of each, and how vLLM is set up.
        num_replicas: how many.
        is_whole: run on where the goal is missed already, for the figures.
    """

    demand: Demand
    deployment: Deployment
    engine: EngineSettings
    num_replicas: int
    is_whole: bool = False

    @property
    def key(self) -> str:
        """What makes the outcome what it is, in short."""
        parts = {
            **self.demand.digest,
            "versions": [__version__, version("vllm")],
            "deployment": self.deployment.to_json(),
            "engine": asdict(self.engine),
            "replicas": self.num_replicas,
            "whole": self.is_whole,
            "scheduler": _source(self.engine),
        }
        return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def run_trial(trial: Trial, tell: Callable[[float], object]) -> Outcome:
    """Run a trial with each seed until one misses the goal.

    Args:
        trial: what to run.
        tell: told the share of the run at hand that is done.

    Returns:
        ``holds``, the run's ``figures`` and ``checks``, of the last seed; ready for JSON.
    """
    demand, wall_s, num_runs = trial.demand, 0.0, 0
    for seed in demand.seeds:
        traffic = demand.traffic
        while True:
            report = _run(trial, traffic, seed, tell)
            wall_s, num_runs = wall_s + report.wall_s, num_runs + 1
            holds = demand.goal.met(report)
            # A recorded load is taken as it is, however short.
            if not holds or not isinstance(traffic, Synthetic):
                break
            if (longer := longer_load(traffic, demand.rate, report)) is None:
                break
            traffic = longer
        if not holds:
            break
    return {
        "replicas": trial.num_replicas,
        "holds": holds,
        "is_whole": holds or trial.is_whole,
        "checks": [check._asdict() for check in demand.goal.checks(report)],
        "figures": report.summary(),
        "warm_up_share": report.warm_up_share,
        "runs": num_runs,
        "wall_s": wall_s,
    }


def shared(traffic: Traffic, demand: Demand, num_replicas: int) -> tuple[Traffic, float, int]:
    """What stands for a load on so many replicas.

    Where requests are drawn, one replica stands for all behind a round-robin router. A recorded
    load is served whole by all replicas: each gets other requests.

    Returns:
        The load, its rate as a share of the demand's, and the replicas that are simulated.
    """
    if not isinstance(traffic, Synthetic):
        return traffic, 1.0, num_replicas
    if demand.router == "round-robin":
        return RoundRobinShare(_scaled(traffic, num_replicas), num_replicas), 1.0, 1
    together = min(num_replicas, MOST_TOGETHER)
    return _scaled(traffic, together), together / num_replicas, together


def _scaled(traffic: Synthetic, num_replicas: int) -> Synthetic:
    """The load with as many requests for each replica."""
    return replace(traffic, num_requests=traffic.num_requests * num_replicas)


def _digest(part: Any) -> str | None:
    """What a part of a load holds, in short."""
    if part is None:
        return None
    held = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
    return sha256(held).hexdigest()


def _source(engine: EngineSettings) -> str | None:
    """The text of a scheduler of the user's own, in short: it may be mended meanwhile."""
    if engine.scheduler in ("stock", "sarathi"):
        return None
    file = getsourcefile(scheduler_class(engine))
    return None if file is None else sha256(Path(file).read_bytes()).hexdigest()


def _run(trial: Trial, traffic: Traffic, seed: int, tell: Callable[[float], object]) -> Report:
    demand = trial.demand
    load, share, together = shared(traffic, demand, trial.num_replicas)
    return simulate(
        trial.engine,
        trial.deployment,
        load.at(demand.rate * share, seed),
        noise=demand.noise,
        seed=seed,
        stop_rule=None if trial.is_whole else demand.goal.stop_rule,
        num_replicas=together,
        router=demand.router,
        on_progress=tell,
    )
