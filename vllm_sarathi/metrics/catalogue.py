"""The one way to register a metric: its name, its meaning and its labels in one place."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry

from vllm_sarathi.metrics.families import Buckets, Counter, Gauge, Histogram, Info, Value

PREFIX = "vllm_sarathi:"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it stands in the table of all.

    Attributes:
        name: as a query names it, a histogram without ``_bucket``, ``_sum`` and ``_count``.
        kind: counter, gauge, histogram or info.
        text: what it means.
        labels: its labels, those aside that all metrics have.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()


@dataclass(slots=True)
class Catalogue:
    """The metrics of one engine core.

    A metric is a function: called with the values of its further labels it gives the series, which
    is there from then on. So a gauge is absent until it is set. Counters and histograms without
    further labels are there from the beginning, and counters whose labels have values that are
    known: Prometheus sees no increase in a series that begins at 1.

    Args:
        labels: labels of all metrics, by name.

    Attributes:
        registry: holds the metrics.
        metrics: them, in the order in which they were registered.
    """

    labels: dict[str, str]
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    metrics: list[Metric] = field(default_factory=list)

    def counter(self, name: str, text: str, **labels: Iterable[str]) -> Callable[..., Value]:
        """A counter; ``name`` ends in ``_total``.

        Args:
            name: without the prefix.
            text: what it counts.
            labels: further labels, each with those of its values that are known in advance.
        """
        series = self._add(Counter, name, text, tuple(labels))
        for values in product(*labels.values()):
            series(*values)
        return series

    def gauge(self, name: str, text: str, *labels: str) -> Callable[..., Value]:
        """A gauge."""
        return self._add(Gauge, name, text, labels)

    def histogram(
        self, name: str, text: str, buckets: Iterable[float], *labels: str
    ) -> Callable[..., Buckets]:
        """A histogram, with the upper bounds of its buckets."""
        series = self._add(Histogram, name, text, labels, buckets=sorted(set(buckets)))
        if not labels:
            series()
        return series

    def info(self, name: str, text: str, values: dict[str, str]) -> None:
        """Values that do not change; ``name`` ends in ``_info``."""
        self._add(Info, name, text)().info(values)

    def _add(
        self, kind: Any, name: str, text: str, labels: tuple[str, ...] = (), **options: Any
    ) -> Callable[..., Any]:
        full, names = PREFIX + name, (*self.labels, *labels)
        self.metrics.append(Metric(full, kind.__name__.lower(), text, labels))
        # What a query calls x_info is registered as x; a counter takes either.
        made = kind(full.removesuffix("_info"), text, names, registry=self.registry, **options)
        return cache(partial(made.labels, *self.labels.values()))
