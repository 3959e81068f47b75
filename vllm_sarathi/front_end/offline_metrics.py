"""Adds the engines' metrics to what ``LLM.get_metrics()`` returns, in vLLM's types."""

import functools
from collections.abc import Iterator
from typing import Any

import prometheus_client
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.metrics.reader import Counter, Gauge, Histogram, Metric

from vllm_sarathi.metrics.exporter import EngineMetrics


@functools.cache
def install() -> None:
    """Wrap the method. Idempotent; without our scheduler there is nothing to add."""
    LLMEngine.get_metrics = _with_engines(LLMEngine.get_metrics)


def _with_engines(get_metrics: Any) -> Any:
    @functools.wraps(get_metrics)
    def wrapper(self: Any) -> list[Metric]:
        found: list[Metric] = get_metrics(self)
        for family in EngineMetrics().collect():
            found.extend(_histograms(family) if family.type == "histogram" else _values(family))
        return found

    return wrapper


def _values(family: prometheus_client.Metric) -> Iterator[Metric]:
    for sample in family.samples:
        if family.type == "counter":
            yield Counter(family.name, sample.labels, int(sample.value))
        else:
            yield Gauge(family.name, sample.labels, sample.value)


def _histograms(family: prometheus_client.Metric) -> Iterator[Metric]:
    """One of each set of labels; the samples of a bucket carry its upper end too."""
    found: dict[tuple[str, ...], Histogram] = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        end = labels.pop("le", None)
        new = Histogram(family.name, labels, count=0, sum=0.0, buckets={})
        histogram = found.setdefault(tuple(labels.values()), new)
        if end is not None:
            histogram.buckets[end] = int(sample.value)
        elif sample.name.endswith("_count"):
            histogram.count = int(sample.value)
        else:
            histogram.sum = sample.value
    yield from found.values()
