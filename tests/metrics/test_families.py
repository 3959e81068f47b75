"""Beside prometheus_client's own, which are the reference."""

from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.values import MutexValue

from vllm_sarathi.metrics import families

BUCKETS = (-1, 0.5, 1, 20)


def text_of(module: Any, values: list[float]) -> list[str]:
    registry = CollectorRegistry()
    counter = module.Counter("a:counted", "Counted.", ["engine"], registry=registry)
    gauge = module.Gauge("a:level", "A level.", ["engine"], registry=registry)
    histogram = module.Histogram(
        "a:sizes", "Sizes.", ["engine"], registry=registry, buckets=BUCKETS
    )
    info = module.Info("a:words", "Words.", ["engine"], registry=registry)
    for engine in ("0", 'a "name"'):
        info.labels(engine).info({"preset": "slo"})
        for value in values:
            counter.labels(engine).inc(abs(value))
            gauge.labels(engine).set(value)
            histogram.labels(engine).observe(value)
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


@given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from(BUCKETS)))
def test_the_text_is_that_of_prometheus_clients(values: list[float]) -> None:
    assert prometheus_client.values.ValueClass is MutexValue
    assert text_of(families, values) == text_of(prometheus_client, values)


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    families.Counter("a:counted", "Counted.", [], registry)
    with pytest.raises(ValueError, match="a:counted"):
        families.Gauge("a:counted", "Counted.", [], registry)
