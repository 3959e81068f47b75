"""A real Prometheus scrapes a real server, and the dashboard's queries return data."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.dashboard import ROWS, Panel, panels
from support.monitored_load import SERVER, run_for
from support.prometheus import SCRAPE_INTERVAL_S, Prometheus, filled_in, program, scraping
from support.server import serve

pytestmark = pytest.mark.engine

LOAD_S = 15
FLAGS = (*SERVER, "--max-num-batched-tokens", "32")
"""Small steps: a throughput is trusted after 30 that could not hold all that waited."""

NEEDS_A_PIPELINE = ROWS["Pipeline parallelism"]
"""One stage has no other to be uneven with: these have no data here."""


@pytest.fixture(scope="module")
def scraped(model: str) -> Iterator[tuple[Prometheus, float, float]]:
    """Prometheus, and the time of the load that it saw."""
    if program("prometheus") is None:
        pytest.skip("prometheus is not installed: .ci/prometheus unpacks Debian's")
    with serve(model, FLAGS) as server, scraping(server.url) as prometheus:
        begin_s = time.time()
        asyncio.run(run_for(server.url, model, LOAD_S))
        end_s = time.time() + SCRAPE_INTERVAL_S
        while not has_scraped_since(end_s, prometheus):
            time.sleep(SCRAPE_INTERVAL_S / 10)
        yield prometheus, begin_s, time.time()


def has_scraped_since(time_s: float, prometheus: Prometheus) -> bool:
    query = f"timestamp(vllm_sarathi:settings_info) > {time_s}"
    return bool(prometheus.ask("query", query=query)["result"])


def num_values(series: list[dict[str, Any]]) -> int:
    return sum(value != "NaN" for found in series for _, value in found["values"])


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_every_query_of_the_dashboard_returns_data(
    scraped: tuple[Prometheus, float, float], panel: Panel
) -> None:
    prometheus, *span_s = scraped
    for legend, query in panel.queries.items():
        has_data = num_values(prometheus.series(filled_in(query), *span_s)) > 0
        assert has_data is (panel not in NEEDS_A_PIPELINE), f"{legend}: {query}"


def test_alerts_are_evaluated(scraped: tuple[Prometheus, float, float]) -> None:
    (group,) = scraped[0].ask("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
