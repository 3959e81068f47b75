import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from vllm_sarathi.metrics import exporter


def wait_for(condition: Any, most_s: float = 20.0) -> None:
    deadline = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_server_shows_what_all_its_engines_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(exporter.DIRECTORY_VARIABLE, str(tmp_path))
    counters, writers = [], []
    for rank in ("0", "1"):
        registry = CollectorRegistry()
        counter = Counter("vllm_sarathi:steps", "Steps.", ["engine"], registry=registry).labels(
            rank
        )
        counters.append(counter)
        writers.append(exporter.EngineMetricsWriter(registry, f"engine-{rank}"))
    server = CollectorRegistry()
    server.register(exporter.EngineMetrics(tmp_path))
    for amount, (counter, writer) in enumerate(zip(counters, writers, strict=True), start=1):
        counter.inc(amount)
        writer.touch()

    def total(rank: str) -> float | None:
        return server.get_sample_value("vllm_sarathi:steps_total", {"engine": rank})

    wait_for(lambda: (total("0"), total("1")) == (1, 2))
    assert generate_latest(server).decode().count("# TYPE vllm_sarathi:steps_total") == 1


def test_the_folder_is_shared_once_and_removed_by_the_process_that_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(exporter.DIRECTORY_VARIABLE, "of a parent process")
    registered: list[Any] = []
    monkeypatch.setattr(REGISTRY, "register", registered.append)
    exporter.share_with_engines.cache_clear()
    exporter.share_with_engines()
    exporter.share_with_engines()
    assert len(registered) == 1
    folder = registered[0].directory
    assert os.environ[exporter.DIRECTORY_VARIABLE] == str(folder)
    exporter._remove(str(folder), owner_pid=-1)
    assert folder.exists()
    exporter._remove(str(folder), owner_pid=os.getpid())
    assert not folder.exists()
    exporter.share_with_engines.cache_clear()


def test_without_a_server_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(exporter.DIRECTORY_VARIABLE, raising=False)
    num_threads = threading.active_count()
    writer = exporter.EngineMetricsWriter(CollectorRegistry(), "engine-0")
    writer.touch()
    assert threading.active_count() == num_threads
