"""Serve a model, let a real Prometheus scrape it, and draw panels of the dashboard.

`.ci/prometheus` unpacks Debian's Prometheus.
"""

import argparse
import asyncio
import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

from support.dashboard import Panel, panels
from support.model import DEFAULT_MODEL
from support.monitored_load import SERVER, run_for
from support.panels_plot import Line, draw
from support.prometheus import Prometheus, filled_in, scraping
from support.provenance import provenance
from support.server import serve

RESULTS = Path(__file__).parent / "results"
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
WINDOW_S = 30
"""Rates are over so long: a small server ends a request or two in a second."""

DRAWN = (
    "Requests that met all objectives",
    "Latency over objective, p95",
    "Gap between tokens",
    "What kept steps from being larger",
    "Token budget of steps with prefill",
    "Step time, predicted and measured",
    "Requests",
    "Wait until the first step, p95",
    "Measured over predicted step time",
)


def lines(prometheus: Prometheus, panel: Panel, begin_s: float, end_s: float) -> list[Line]:
    """What a panel shows of a time."""
    found = []
    for legend, query in panel.queries.items():
        for series in prometheus.series(filled_in(query, WINDOW_S), begin_s, end_s):
            points = [(at - begin_s, float(value)) for at, value in series["values"]]
            points = [(round(at, 1), float(f"{y:.4g}")) for at, y in points if math.isfinite(y)]
            if points:
                times_s, values = map(list, zip(*points, strict=True))
                found.append(Line(_named(legend, series["metric"]), times_s, values))
    return found


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend)


def measure(model: str, duration_s: float) -> dict[str, list[Line]]:
    """The lines of each drawn panel, after the first rates are whole."""
    with serve(model, SERVER) as server, scraping(server.url) as prometheus:
        asyncio.run(run_for(server.url, model, WINDOW_S))
        begin_s = time.time()
        asyncio.run(run_for(server.url, model, duration_s))
        end_s = time.time()
        shown = [panel for panel in panels() if panel.title in DRAWN]
        return {panel.title: lines(prometheus, panel, begin_s, end_s) for panel in shown}


def redraw(saved: dict[str, Any], path: Path) -> None:
    """The picture of what was saved; the third with more load is shaded."""
    by_title = {panel.title: panel for panel in panels()}
    found = [(by_title[title], [Line(*line) for line in saved["panels"][title]]) for title in DRAWN]
    third_s = saved["duration_s"] / 3
    draw(found, (third_s, 2 * third_s), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--duration-s", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--redraw", action="store_true", help="draw what was measured before")
    arguments = parser.parse_args()
    saved = RESULTS / "dashboard.json"
    if not arguments.redraw:
        os.environ.update(ENVIRONMENT)
        found = measure(arguments.model, arguments.duration_s)
        raw = provenance(
            model=Path(arguments.model).name,
            server=SERVER,
            duration_s=arguments.duration_s,
            panels=found,
        )
        saved.write_text(json.dumps(raw) + "\n")
    redraw(json.loads(saved.read_text()), RESULTS / "dashboard.png")


if __name__ == "__main__":
    main()
