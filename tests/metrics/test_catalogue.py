import re

import pytest

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.catalogue import Catalogue
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.objectives import ObjectivesReader, RequestObjectives
from vllm_sarathi.qos_classes import QosClass

GOLD = QosClass(ttft_slo_ms=1234, tpot_slo_ms=23, tbt_slo_ms=45, e2e_slo_ms=7890)
UNITS = {"counter": "total", "histogram": "seconds|tokens|chunks|ratio", "info": "info"}


@pytest.fixture(scope="module")
def recorder() -> StepRecorder:
    settings = SarathiConfig(qos_classes={"gold": GOLD}, tbt_slo_ms=67.0, ttft_slo_ms=890.0)
    return StepRecorder(settings.model_dump(), "m", 0, ObjectivesReader(settings).of_classes)


def labels(recorder: StepRecorder, name: str) -> list[dict[str, str]]:
    """Those of each sample of a name."""
    families = recorder.catalogue.registry.collect()
    return [s.labels for family in families for s in family.samples if s.name == name]


def test_a_counter_is_there_at_0_and_a_gauge_once_it_is_set() -> None:
    catalogue = Catalogue({"engine": "0"})
    catalogue.counter("things_total", "Things.")
    catalogue.counter("cases_total", "Cases.", case=("a", "b"))
    gauge = catalogue.gauge("level_seconds", "Level.")
    found = catalogue.registry.get_sample_value
    assert found("vllm_sarathi:things_total", {"engine": "0"}) == 0
    assert found("vllm_sarathi:cases_total", {"engine": "0", "case": "b"}) == 0
    assert found("vllm_sarathi:level_seconds", {"engine": "0"}) is None
    gauge().set(3)
    assert found("vllm_sarathi:level_seconds", {"engine": "0"}) == 3


def test_every_counter_whose_values_are_known_begins_at_0(recorder: StepRecorder) -> None:
    for metric in recorder.catalogue.metrics:
        if metric.kind == "counter":
            assert labels(recorder, metric.name), metric.name


@pytest.mark.parametrize(
    ("name", "objectives_s"),
    [
        ("measured_step_seconds", {0.067, 0.045}),
        ("predicted_step_seconds", {0.067, 0.045}),
        ("waiting_seconds", {0.89, 1.234, 2.0}),
        ("latency_seconds", {0.89, 1.234, 2.0, 0.023, 0.05, 7.89}),
    ],
)
def test_buckets_tell_what_is_within_each_objective(
    recorder: StepRecorder, name: str, objectives_s: set[float]
) -> None:
    gold = RequestObjectives(qos="gold")
    recorder.objectives.waited(gold, 1.0)
    recorder.objectives.ended(gold, {"ttft": True}, {"ttft": 1.0}, None)
    buckets = labels(recorder, f"vllm_sarathi:{name}_bucket")
    assert objectives_s <= {float(bucket["le"]) for bucket in buckets}


def test_names_end_in_their_unit(recorder: StepRecorder) -> None:
    for metric in recorder.catalogue.metrics:
        ending = UNITS.get(metric.kind, "seconds|tokens|ratio|per_second")
        assert re.search(f"_({ending})$", metric.name), metric.name


def test_every_text_is_a_sentence(recorder: StepRecorder) -> None:
    for metric in recorder.catalogue.metrics:
        assert re.fullmatch(r"[A-Z].{15,}\.", metric.text), metric
