import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from support.server import free_port

from vllm_sarathi.metrics import scrape_port
from vllm_sarathi.metrics.families import Gauge


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("vllm_sarathi:token_budget", "Tokens.", ["engine"], registry).labels("3").set(512)
    return registry


def test_an_engine_serves_its_metrics_on_a_port_until_it_ends(registry: CollectorRegistry) -> None:
    port = free_port()
    end = scrape_port.serve_metrics(registry, "127.0.0.1", port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert 'vllm_sarathi:token_budget{engine="3"} 512.0' in answer.read().decode()
    end()


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_a_port_that_cannot_be_had_is_a_warning(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    said = list[str]()
    monkeypatch.setattr(
        scrape_port.logger, "warning", lambda text, *values: said.append(text % values)
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        scrape_port.serve_metrics(registry, host, port)()
    assert f"metrics_port: cannot listen on {host}:{port}" in said[0]


def test_a_rank_that_lifts_the_port_above_the_last_one_is_a_warning(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    monkeypatch.setattr(scrape_port.logger, "warning", lambda text, *values: said.append(text))
    scrape_port.serve_metrics(registry, "127.0.0.1", 65536)
    assert said
