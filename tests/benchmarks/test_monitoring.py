"""The table of metrics, the dashboard and the alerts fit the code, and Prometheus takes them."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import monitoring
import pytest
from prometheus_client import generate_latest
from support.dashboard import Panel, panels
from support.prometheus import EXAMPLES, filled_in, program

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.objectives import ObjectivesReader

ALERTS = EXAMPLES / "alerts.yml"
KINDS = {metric.name: metric.kind for metric in monitoring.metrics()}


def queried(text: str) -> set[str]:
    """The metrics of this scheduler that a text queries, as Prometheus names them."""
    return set(re.findall(r"vllm_sarathi:[a-z0-9_]+", text))


def series_of(name: str) -> set[str]:
    """The names under which a metric is queried."""
    if KINDS[name] != "histogram":
        return {name}
    return {name + part for part in ("_bucket", "_sum", "_count")}


@pytest.mark.parametrize("path", monitoring.files(), ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path: Path) -> None:
    assert path.read_text() == monitoring.files()[path], "run `make monitoring`"


def test_every_metric_that_is_queried_exists() -> None:
    texts = [ALERTS.read_text(), *(query for p in panels() for query in p.queries.values())]
    known = {name for metric in KINDS for name in series_of(metric)}
    assert set().union(*map(queried, texts)) <= known


def test_every_metric_is_on_the_dashboard() -> None:
    assert {name for panel in panels() for name in panel.metrics} >= set(KINDS)


def test_every_metric_of_vllms_that_is_queried_exists() -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "v1/metrics/loggers.py").read_text()
    names = {name for panel in panels() for name in panel.metrics if name.startswith("vllm:")}
    assert names
    for name in names:
        assert f'name="{name.removesuffix("_total")}"' in text, name


def test_titles_tell_panels_apart() -> None:
    titles = [panel.title for panel in panels()]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_a_legend_names_the_labels_by_which_its_query_sums(panel: Panel) -> None:
    for legend, query in panel.queries.items():
        sums = re.findall(r" by \(([^)]*)\)", query)
        by = {label for labels in sums for label in labels.split(", ")} - {"le"}
        assert set(re.findall(r"{{(\w+)}}", legend)) == by


@pytest.fixture(scope="module")
def promtool() -> Path:
    found = program("promtool")
    if found is None:
        pytest.skip("promtool is not installed: .ci/prometheus unpacks Debian's")
    return found


def run(promtool: Path, *arguments: str | Path) -> str:
    """What promtool says; it has to succeed."""
    done = subprocess.run((promtool, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_alerts(promtool: Path) -> None:
    assert "5 rules found" in run(promtool, "check", "config", EXAMPLES / "prometheus.yml")


def test_alerts_fire_when_they_should_and_only_then(promtool: Path) -> None:
    run(promtool, "test", "rules", Path(__file__).with_name("alerts.test.yml"))


def test_prometheus_can_read_every_query(promtool: Path, tmp_path: Path) -> None:
    lines = ["groups: [{name: dashboard, rules: ["]
    for number, query in enumerate(query for p in panels() for query in p.queries.values()):
        lines.append(f"{{record: 'query{number}', expr: '{filled_in(query)}'}},")
    rules = tmp_path / "rules.yml"
    rules.write_text("\n".join([*lines, "]}]\n"]))
    run(promtool, "check", "rules", rules)


def test_names_and_texts_are_as_prometheus_recommends(promtool: Path) -> None:
    settings = SarathiConfig(ttft_slo_ms=1000.0)
    recorder = StepRecorder({}, "m", 0, ObjectivesReader(settings).of_classes)
    # vLLM's own prefix has a colon, and ours follows it.
    text = generate_latest(recorder.catalogue.registry)
    command = (promtool, "check", "metrics")
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode().splitlines()
    complaints = [line for line in said if "should not contain ':'" not in line]
    assert not complaints
