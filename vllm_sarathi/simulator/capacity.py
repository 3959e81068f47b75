"""The highest rate at which objectives are met."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal, Check
from vllm_sarathi.simulator.load.traffic import Traffic
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.report import Report
from vllm_sarathi.simulator.run import check_arguments, simulate
from vllm_sarathi.simulator.steady import longer_load

LOWEST_RATE, HIGHEST_RATE = 1 / 64, 4096.0
# Width of the bracket that a capacity search ends with, as a share of the rate.
PRECISION = 0.02


class SearchProgress(NamedTuple):
    """How far a search is.

    Args:
        num_runs: runs that are done.
        rate: requests per second of the run at hand.
        share: how much of it is done.
    """

    num_runs: int
    rate: float
    share: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacity found for one engine and seed.

    Args:
        rate: requests per second; 0 if even the lowest rate fails.
        report: the run at that rate; None at 0.
        num_runs: runs it took.
        wall_s: real time of all of them.
        precision: width of the final bracket, as a share of the rate.
        checked_rate: the rate itself, or the lowest one tried where that fails.
        checks: every condition of the goal, and what the run at that rate came to.
    """

    label: str
    seed: int
    rate: float
    report: Report | None = field(repr=False)
    num_runs: int
    wall_s: float
    precision: float
    checked_rate: float
    checks: tuple[Check, ...]

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "label": self.label,
            "seed": self.seed,
            "capacity_rps": self.rate,
            "precision": self.precision,
            "warm_up_share": None if self.report is None else self.report.warm_up_share,
            "runs": self.num_runs,
            "wall_s": self.wall_s,
            "checked_rps": self.checked_rate,
            "checks": [check._asdict() for check in self.checks],
            "at_capacity": None if self.report is None else self.report.summary(),
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
    steady: bool = True,
    on_progress: Callable[[SearchProgress], object] | None = None,
) -> Capacity:
    """Bisect for the highest rate that meets a goal.

    The rate leaves ``start_rate`` in longer and longer strides until the goal changes
    sides, then the bracket halves until it is within ``precision``. Runs that have failed already
    stop early. A short run meets a goal at any rate, for it ends before the engine is full: a
    synthetic load gets more requests until it is steady (``simulator.steady``).

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
        steady: make runs long enough; False takes the load as it is.
        on_progress: told how far the search is.

    Raises:
        ValueError: an argument is wrong, or a recorded load is far too short.
    """
    check_arguments(engine, deployment, noise)
    if not precision > 0:
        raise ValueError(f"precision={precision!r} must be a share above 0")
    search = _Search(engine, deployment, traffic, goal, seed, noise, limit_s, steady, on_progress)
    low, high = search.bracket(start_rate)
    while high is not None and low and high / low > 1 + precision:
        middle = (low * high) ** 0.5
        if search.meets_goal(middle):
            low = middle
        else:
            high = middle
    return search.result(low, precision)


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
    steady: bool
    on_progress: Callable[[SearchProgress], object] | None
    best: tuple[float, Report] | None = None
    lowest_failed: float | None = None
    num_runs: int = 0
    wall_s: float = 0.0

    def meets_goal(self, rate: float) -> bool:
        """Whether a run at a rate meets the goal that is long enough to tell."""
        while True:
            report = self._run(rate)
            if not self.goal.met(report):
                self.lowest_failed = min(rate, self.lowest_failed or rate)
                return False
            if not self.steady or (longer := longer_load(self.traffic, rate, report)) is None:
                self.best = rate, report
                return True
            self.traffic = longer

    def _run(self, rate: float, stops_early: bool = True) -> Report:
        def tell(share: float) -> None:
            if self.on_progress is not None:
                self.on_progress(SearchProgress(self.num_runs, rate, share))

        tell(0.0)
        report = simulate(
            self.engine,
            self.deployment,
            self.traffic.at(rate, self.seed),
            noise=self.noise,
            seed=self.seed,
            limit_s=self.limit_s,
            stop_rule=self.goal.stop_rule if stops_early else None,
            on_progress=tell,
        )
        self.num_runs += 1
        self.wall_s += report.wall_s
        return report

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

    def result(self, rate: float, precision: float) -> Capacity:
        """What was found."""
        found, checked_rate = self.best, self.lowest_failed
        if found is None:
            assert checked_rate is not None
            report = self._run(checked_rate, stops_early=False)
        else:
            checked_rate, report = found
        return Capacity(
            self.engine.name,
            self.seed,
            rate,
            None if found is None else report,
            self.num_runs,
            self.wall_s,
            precision,
            checked_rate,
            self.goal.checks(report),
        )
