"""Counters, gauges and histograms that cost an engine's loop little.

Unlike prometheus_client's they take no locks, for one thread counts and others only read, and they
stay out of the files that it shares between processes where ``PROMETHEUS_MULTIPROC_DIR`` is set:
from there API servers would show them a second time.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Series = TypeVar("Series")


@dataclass(slots=True)
class Value:
    """A series of a counter or a gauge."""

    value: float = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace it."""
        self.value = value


@dataclass(slots=True)
class Buckets:
    """A series of a histogram.

    Attributes:
        bounds: upper ends of the buckets, ascending; the last one has none.
        counts: values in each of them.
        total: sum of all values.
    """

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Labels:
    """A series of an info metric."""

    labels: dict[str, str] = field(default_factory=dict)

    def info(self, labels: dict[str, str]) -> None:
        """Replace its labels."""
        self.labels = labels


class _Family(Collector, Generic[Series]):
    """The series of one metric, by the values of their labels.

    Args:
        name: without the ending ``_total`` of a counter.
        documentation: what it means.
        labelnames: labels of each series.
        registry: where it goes.
    """

    kind: type[Any]

    def __init__(
        self, name: str, documentation: str, labelnames: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._described = (name, documentation, labelnames)
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series with these values, in the order of the label names."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._make()
        return series

    def describe(self) -> Iterable[Metric]:
        """Its name and meaning."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """All its series."""
        family = self._family()
        for values, series in list(self._series.items()):  # the engine may add one meanwhile
            self._add(family, values, series)
        return [family]

    def _family(self) -> Any:
        name, text, labels = self._described
        return self.kind(name, text, labels=labels)

    @abstractmethod
    def _make(self) -> Series:
        """A new series."""

    @abstractmethod
    def _add(self, family: Any, values: tuple[str, ...], series: Series) -> None:
        """Add the samples of a series."""


class _ValueFamily(_Family[Value]):
    def _make(self) -> Value:
        return Value()

    def _add(self, family: Any, values: tuple[str, ...], series: Value) -> None:
        family.add_metric(values, series.value)


class Counter(_ValueFamily):
    """A metric that only grows."""

    kind = CounterMetricFamily


class Gauge(_ValueFamily):
    """A metric that is what was last set."""

    kind = GaugeMetricFamily


class Histogram(_Family[Buckets]):
    """A metric of how values are distributed; ``buckets`` are upper ends, ascending."""

    kind = HistogramMetricFamily

    def __init__(self, *args: Any, buckets: Sequence[float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = tuple(buckets)

    def _make(self) -> Buckets:
        return Buckets(self._bounds)

    def _add(self, family: Any, values: tuple[str, ...], series: Buckets) -> None:
        ends = map(floatToGoString, (*self._bounds, inf))
        buckets = list(zip(ends, accumulate(series.counts[:]), strict=True))
        family.add_metric(values, buckets, series.total)
        if self._bounds[0] < 0:  # which it takes for a reason to leave the count out
            labels = dict(zip(self._described[2], values, strict=True))
            family.add_sample(f"{family.name}_count", labels, buckets[-1][1])


class Info(_Family[Labels]):
    """An info metric: constant values as labels."""

    kind = InfoMetricFamily

    def _make(self) -> Labels:
        return Labels()

    def _add(self, family: Any, values: tuple[str, ...], series: Labels) -> None:
        family.add_metric(values, series.labels)
