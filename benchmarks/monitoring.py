"""Write what is generated from the metrics: the table of all, and the dashboard for Grafana."""

import json
from pathlib import Path

from support.grafana import dashboard

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.catalogue import Metric
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.objectives import ObjectivesReader

FOLDER = Path(__file__).parents[1] / "examples" / "monitoring"
HEAD = """# Metrics

`make monitoring` writes this file from the code. All metrics have the labels `model_name` and
`engine`, as vLLM's own have. A histogram is queried by its name with `_bucket`, `_sum` or `_count`.
A gauge that has no value yet is absent, not 0. `qos` is a class of objectives, `default` for
requests that name none.

| metric | kind | further labels | meaning |
|---|---|---|---|
"""


def metrics() -> list[Metric]:
    """All metrics."""
    settings = SarathiConfig()
    return StepRecorder({}, "", 0, ObjectivesReader(settings).of_classes).catalogue.metrics


def table() -> str:
    """The metrics in Markdown."""
    return HEAD + "".join(
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.text} |\n"
        for metric in metrics()
    )


def files() -> dict[Path, str]:
    """What each file has to hold."""
    return {
        FOLDER / "metrics.md": table(),
        FOLDER / "grafana.json": json.dumps(dashboard(), indent=1) + "\n",
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
