"""The highest rate at which objectives are met."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.load.traffic import Traffic
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.recorder import StopRule
from vllm_sarathi.simulator.results.report import Report
from vllm_sarathi.simulator.run import simulate

LOWEST_RATE, HIGHEST_RATE = 1 / 64, 4096.0
# Width of the bracket that a capacity search ends with, as a share of the rate.
PRECISION = 0.02


@dataclass(frozen=True, slots=True)
class CapacityGoal:
    """What has to hold at a rate for it to be within capacity.

    Sarathi-Serve's definition (section 5): P99 TBT within the objective, and a median
    scheduling delay that shows no growing queue. Or a share of requests that meet all
    their objectives.

    Args:
        tbt_s: limit for the P99 time between tokens; None asks nothing.
        scheduling_delay_s: limit for the median delay before a request is scheduled.
        goodput: share of requests that must meet ``objectives``; None asks nothing.
        objectives: of every request, for ``goodput``; None takes each class's own.
    """

    tbt_s: float | None = None
    scheduling_delay_s: float = 2.0
    goodput: float | None = None
    objectives: Objectives | None = None

    def met(self, report: Report) -> bool:
        """Whether a run met it."""
        delay_s = report.percentile("scheduling_delay_s", 50)
        if not report.completed or delay_s is None or delay_s > self.scheduling_delay_s:
            return False
        tbt_s = report.gaps.percentile(99)
        if self.tbt_s is not None and tbt_s is not None and tbt_s > self.tbt_s:
            return False
        if self.goodput is None:
            return True
        return (report.goodput(self.objectives) or 0.0) >= self.goodput

    @property
    def stop_rule(self) -> StopRule:
        """When a run has failed already."""
        return StopRule(self.tbt_s, self.scheduling_delay_s)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacity found for one engine and seed.

    Args:
        rate: requests per second; 0 if even the lowest rate fails.
        report: the run at that rate; None at 0.
        num_runs: runs it took.
        wall_s: real time of all of them.
    """

    label: str
    seed: int
    rate: float
    report: Report | None = field(repr=False)
    num_runs: int
    wall_s: float

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        at_capacity = None if self.report is None else self.report.summary()
        return {
            "label": self.label,
            "seed": self.seed,
            "capacity_rps": self.rate,
            "runs": self.num_runs,
            "wall_s": self.wall_s,
            "at_capacity": at_capacity,
        }


def find_capacity(
    engine: EngineSettings,
    deployment: Deployment,
    traffic: Traffic,
    goal: CapacityGoal,
    *,
    seed: int = 0,
    noise: float = 0.0,
    start_rate: float = 1.0,
    precision: float = PRECISION,
    limit_s: float | None = None,
) -> Capacity:
    """Bisect for the highest rate that meets a goal.

    The rate leaves ``start_rate`` in longer and longer strides until the goal changes
    sides, then the bracket halves until it is within ``precision``. Runs that have failed already
    stop early.

    Args:
        engine: which scheduler, and how vLLM is set up.
        deployment: what a step costs.
        traffic: the load.
        goal: what has to hold.
        seed: of traffic and noise.
        noise: standard deviation of every step's time, as a share of it.
        start_rate: first rate tried, in requests per second.
        precision: width of the final bracket, as a share of the rate.
        limit_s: virtual time at which a run ends, and has failed; None as ``simulate``.
    """
    search = _Search(engine, deployment, traffic, goal, seed, noise, limit_s)
    low, high = search.bracket(start_rate)
    while high is not None and low and high / low > 1 + precision:
        middle = (low * high) ** 0.5
        if search.meets_goal(middle):
            low = middle
        else:
            high = middle
    return search.result(low)


def _strides() -> Iterator[float]:
    """Short strides first: a start is often a good guess."""
    yield from (1.1, 1.2, 1.5)
    while True:
        yield 2.0


@dataclass(slots=True)
class _Search:
    engine: EngineSettings
    deployment: Deployment
    traffic: Traffic
    goal: CapacityGoal
    seed: int
    noise: float
    limit_s: float | None
    best: Report | None = None
    num_runs: int = 0
    wall_s: float = 0.0

    def meets_goal(self, rate: float) -> bool:
        """Run at a rate; whether it met the goal."""
        report = simulate(
            self.engine,
            self.deployment,
            self.traffic.at(rate, self.seed),
            noise=self.noise,
            seed=self.seed,
            limit_s=self.limit_s,
            stop_rule=self.goal.stop_rule,
        )
        self.num_runs += 1
        self.wall_s += report.wall_s
        met = self.goal.met(report)
        if met:
            self.best = report
        return met

    def bracket(self, rate: float) -> tuple[float, float | None]:
        """A rate that meets the goal (0 if none) and one that does not (None if none)."""
        met = self.meets_goal(rate)
        for stride in _strides():
            beyond = rate * stride if met else rate / stride
            if beyond > HIGHEST_RATE:
                return rate, None
            if beyond < LOWEST_RATE:
                return 0.0, rate
            if self.meets_goal(beyond) != met:
                return min(rate, beyond), max(rate, beyond)
            rate = beyond
        raise AssertionError("strides never end")

    def result(self, rate: float) -> Capacity:
        """What was found."""
        name = self.engine.name
        return Capacity(name, self.seed, rate, self.best, self.num_runs, self.wall_s)
