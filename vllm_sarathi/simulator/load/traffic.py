"""Requests at a rate: lengths with arrivals, or a trace played faster or slower."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from vllm_sarathi.simulator.load.workload import Floats, Lengths, QosClass, Workload

Random = np.random.Generator
# Beyond it nearly all requests of a run would come at once.
MOST_CV = 100


class LengthSource(Protocol):
    """What draws lengths (``vllm_sarathi.simulator.load.lengths``)."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def draw(self, num: int, random: Random) -> Lengths:
        """Draw so many requests' lengths."""


class Traffic(Protocol):
    """A kind of load whose rate can be chosen."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def at(self, rate: float, seed: int) -> Workload:
        """The workload at a mean rate, in requests per second."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests come: a Poisson process if ``cv`` is 1, else gamma-distributed gaps.

    Args:
        cv: coefficient of variation of the gaps: 0 even, 1 Poisson, above 1 bursty.
        shape: relative rate over time, as a function of the share of the run that has
            passed; its mean need not be 1. None is steady.
    """

    cv: float = 1.0
    shape: Callable[[Floats], Floats] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.cv <= MOST_CV:
            raise ValueError(f"cv={self.cv!r} must be from 0 to {MOST_CV}")

    def draw(self, num: int, rate: float, random: Random) -> Floats:
        """Draw so many arrival times at a mean rate, in requests per second."""
        if not rate > 0:
            raise ValueError(f"rate={rate!r} must be above 0 requests per second")
        even = self.cv < 1e-6
        gaps = np.ones(num) if even else random.gamma(1 / self.cv**2, self.cv**2, num)
        times = np.cumsum(gaps)
        if self.shape is None:
            return np.asarray(times / rate)
        return self._warped(times, num, rate)

    def _warped(self, times: Floats, num: int, rate: float) -> Floats:
        """Stretch a steady process so that its rate follows the shape."""
        assert self.shape is not None
        passed = np.linspace(0, 1, 10_001)
        speed = np.maximum(self.shape(passed), 1e-6)
        expected = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        expected *= num / expected[-1]
        share = np.interp(times, expected, passed)
        share += np.maximum(times - num, 0) / num  # the last gaps may pass the end
        return np.asarray(share * num / rate)


@dataclass(frozen=True, slots=True)
class Ramp:
    """Rate that goes from one multiple of the mean to another over the run."""

    start: float = 0.2
    end: float = 1.8

    def __call__(self, passed: Floats) -> Floats:
        """Relative rate when this share of the run has passed."""
        return self.start + (self.end - self.start) * passed


@dataclass(frozen=True, slots=True)
class Diurnal:
    """Rate that swings like day and night, so many times over the run."""

    low: float = 0.3
    high: float = 1.7
    days: float = 1.0

    def __call__(self, passed: Floats) -> Floats:
        """Relative rate when this share of the run has passed."""
        middle, swing = (self.low + self.high) / 2, (self.high - self.low) / 2
        return np.asarray(middle - swing * np.cos(2 * np.pi * self.days * passed))


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Drawn lengths at drawn times.

    Args:
        lengths: what draws lengths.
        num_requests: how many requests.
        arrivals: when they come.
        classes: QoS classes with their shares; empty for one without objectives.
        at_once: all requests at time 0, whatever the rate.
    """

    lengths: LengthSource
    num_requests: int = 1000
    arrivals: Arrivals = Arrivals()
    classes: Sequence[tuple[QosClass, float]] = ()
    at_once: bool = False

    def __post_init__(self) -> None:
        if self.num_requests < 1:
            raise ValueError(f"num_requests={self.num_requests!r} must be 1 or more")

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.lengths.name

    def at(self, rate: float, seed: int) -> Workload:
        """The workload at a mean rate; lengths are the same at every rate."""
        lengths = self.lengths.draw(self.num_requests, np.random.default_rng([seed, 0]))
        if self.at_once:
            times = np.zeros(self.num_requests)
        else:
            random = np.random.default_rng([seed, 1])
            times = self.arrivals.draw(self.num_requests, rate, random)
        workload = Workload(self.name, times, lengths)
        return workload.with_classes(self.classes, seed) if self.classes else workload


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded workload, its clock scaled to the rate asked for; seeds change nothing."""

    recorded: Workload
    classes: Sequence[tuple[QosClass, float]] = field(default=())

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.recorded.name

    @property
    def rate(self) -> float:
        """Mean rate as recorded, in requests per second."""
        span_s = float(self.recorded.arrival_s[-1])
        return len(self.recorded) / span_s if span_s else float(len(self.recorded))

    def at(self, rate: float, seed: int) -> Workload:
        """The trace played so that its mean rate is as asked."""
        if not rate > 0:
            raise ValueError(f"rate={rate!r} must be above 0 requests per second")
        workload = self.recorded.at_times(self.recorded.arrival_s * (self.rate / rate))
        return workload.with_classes(self.classes, seed) if self.classes else workload
