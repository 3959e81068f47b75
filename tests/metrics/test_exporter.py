import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
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


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Path]]:
    """Folders of servers that start; each call of ``share_with_engines`` adds one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(exporter.DIRECTORY_VARIABLE, "of a parent process")
    folders: list[Path] = []
    monkeypatch.setattr(REGISTRY, "register", lambda found: folders.append(found.directory))
    monkeypatch.setattr(exporter, "_is_closed", threading.Event())
    exporter.share_with_engines.cache_clear()
    yield folders
    exporter.share_with_engines.cache_clear()


def test_the_folder_is_shared_once_and_removed_by_the_process_that_made_it(
    shared: list[Path],
) -> None:
    exporter.share_with_engines()
    exporter.share_with_engines()
    (folder,) = shared
    assert os.environ[exporter.DIRECTORY_VARIABLE] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    exporter._remove(folder, owner_pid=-1)
    assert folder.exists()
    exporter._remove(folder, owner_pid=os.getpid())
    assert not folder.exists()


def test_folders_of_servers_that_were_killed_are_removed_and_no_others(
    shared: list[Path], tmp_path: Path
) -> None:
    exporter.share_with_engines()
    (live,) = shared
    killed = live.with_name("vllm-sarathi-server-killed")
    killed.mkdir()
    (killed / "lock").touch()
    other = live.with_name("something-else")
    other.mkdir()
    exporter.share_with_engines.cache_clear()
    exporter.share_with_engines()
    assert sorted(live.parent.iterdir()) == sorted([*shared, other])


def test_where_the_cache_cannot_be_written_the_folder_is_a_temporary_one(
    shared: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exporter.share_with_engines()
    assert shared[0].parent == tmp_path


def test_figures_come_back_after_a_cleaner_took_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(exporter, "_CHECK_INTERVAL_S", 0.05)
    folder = tmp_path / "server"
    monkeypatch.setenv(exporter.DIRECTORY_VARIABLE, str(folder))
    registry = CollectorRegistry()
    Counter("vllm_sarathi:steps", "Steps.", registry=registry).inc()
    exporter.EngineMetricsWriter(registry, "engine-0")
    for _ in range(2):
        wait_for((folder / "engine-0.prom").exists)
        shutil.rmtree(folder)
        assert list(exporter.EngineMetrics(folder).collect()) == []
    wait_for((folder / "engine-0.prom").exists)


def test_without_a_server_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(exporter.DIRECTORY_VARIABLE, raising=False)
    num_threads = threading.active_count()
    writer = exporter.EngineMetricsWriter(CollectorRegistry(), "engine-0")
    writer.touch()
    assert threading.active_count() == num_threads
