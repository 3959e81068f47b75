import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_sarathi.metrics import exporter, replier, server_folder
from vllm_sarathi.metrics.families import Counter

ENDS: list[Callable[[], None]] = []
"""Of the engines that a test began."""


@pytest.fixture
def parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Where folders are made: under a short name, as sockets need."""
    tmp_path_factory.getbasetemp()  # of pytest, which shall not make its own there
    monkeypatch.setenv(server_folder.DIRECTORY_VARIABLE, "of a process outside")
    monkeypatch.setattr(replier, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(exporter, "REPLY_LIMIT_S", 60.0)  # however busy this machine is
    monkeypatch.setattr(REGISTRY, "register", lambda found: None)
    monkeypatch.setattr(MultiProcessCollector, "collect", MultiProcessCollector.collect)
    others = threading.enumerate()
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        forget()
        yield Path(folder)
        forget()
        while ENDS:
            ENDS.pop()()
        wait_for(lambda: not repliers_beside(others))  # they make their sockets again


def forget() -> None:
    server_folder.make_folder.cache_clear()
    exporter._show.cache_clear()


def share(*, inherits: bool = False) -> Path:
    exporter.share_with_engines(inherits=inherits)
    return Path(os.environ[server_folder.DIRECTORY_VARIABLE])


def engine(rank: str, num_steps: int = 1) -> Callable[[], None]:
    """An engine that counted some steps; the call ends it."""
    registry = CollectorRegistry()
    counter = Counter("vllm_sarathi:steps", "Steps.", ["engine"], registry)
    counter.labels(rank).inc(num_steps)
    return replies(registry, rank)


def replies(registry: CollectorRegistry, rank: str) -> Callable[[], None]:
    end = replier.reply_to_scrapes(registry, f"engine-{rank}")
    ENDS.append(end)
    return end


def repliers_beside(others: Iterable[threading.Thread]) -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "sarathi-metrics"} - {*others}


def shown(*ranks: str) -> list[float | None]:
    registry = CollectorRegistry()
    registry.register(exporter.EngineMetrics())
    return [
        registry.get_sample_value("vllm_sarathi:steps_total", {"engine": rank}) for rank in ranks
    ]


def test_whoever_asks_is_shown_what_all_engines_count(parent: Path) -> None:
    share()
    engine("0", 1)
    engine("1", 2)
    assert shown("0", "1") == [1, 2]
    registry = CollectorRegistry()
    registry.register(exporter.EngineMetrics())
    text = generate_latest(registry).decode()
    assert text.count("# TYPE vllm_sarathi:steps_total") == 1


def test_the_registry_that_several_api_servers_make_at_each_scrape_shows_them_too(
    parent: Path, tmp_path: Path
) -> None:
    share()
    engine("0")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    assert registry.get_sample_value("vllm_sarathi:steps_total", {"engine": "0"}) == 1


def wait_for(condition: Callable[[], bool], most_s: float = 20.0) -> None:
    deadline = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_an_engine_that_has_ended_is_not_shown(parent: Path) -> None:
    share()
    end = engine("0")
    engine("1")
    end()
    wait_for(lambda: shown("0", "1") == [None, 1])


def test_an_engine_takes_the_place_of_an_earlier_one_of_its_name(parent: Path) -> None:
    share()
    before = threading.enumerate()
    end = engine("0", 1)
    engine("0", 2)
    end()
    assert shown("0") == [2]
    wait_for(lambda: len(repliers_beside(before)) == 1)


def test_an_earlier_engine_comes_back_when_a_later_one_of_its_name_has_ended(
    parent: Path,
) -> None:
    share()
    engine("0", 1)
    end_later = engine("0", 2)
    end_later()
    wait_for(lambda: shown("0") == [1])


def test_an_engine_whose_metrics_cannot_be_written_as_text_hides_no_other(parent: Path) -> None:
    share()
    registry = CollectorRegistry()
    Counter("vllm_sarathi:steps", "Steps.", ["engine"], registry).labels("\ud800").inc()
    replies(registry, "0")
    engine("1")
    assert shown("1") == [1]
    assert shown("1") == [1]


def test_an_engine_whose_folder_a_cleaner_removed_is_shown_again(parent: Path) -> None:
    directory = share()
    end = engine("0", 3)
    shutil.rmtree(directory.rename(parent / "removed"))  # at once, for the engine makes it again
    wait_for(lambda: shown("0") == [3])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    end()
    assert shown("0") == [None]


def test_an_engine_that_does_not_reply_delays_a_scrape_and_hides_no_other(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "REPLY_LIMIT_S", 0.1)
    folder = share()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "engine-0.sock"))
        silent.listen()
        engine("1")
        wait_for(lambda: shown("1") == [1])  # a busy machine may keep it from replying in time


def test_the_folder_is_private_made_once_and_removed_by_the_process_that_made_it(
    parent: Path,
) -> None:
    folder = share()
    assert share() == folder
    assert folder.parent.parent == parent
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o700 for each in (folder, folder.parent))
    engine("0")
    server_folder._remove_own(folder, owner_pid=-1)
    assert folder.exists()
    server_folder._remove_own(folder, owner_pid=os.getpid())
    assert not list(parent.iterdir())


def test_an_api_server_beside_others_keeps_the_folder_that_it_inherits(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server_folder.DIRECTORY_VARIABLE, str(parent))
    assert share(inherits=True) == parent
    assert share(inherits=False) != parent


def test_folders_of_processes_that_were_killed_are_removed_and_no_others(parent: Path) -> None:
    live = share()
    killed = live.with_name("server-killed")
    killed.mkdir()
    (killed / "engine-0.sock").touch()
    others = [live.with_name("another"), live.with_name("server-with-a-file")]
    for other in others:
        other.mkdir()
        (other / "file").touch()
    forget()
    assert sorted([share(), live, *others]) == sorted(live.parent.iterdir())


def test_a_folder_that_others_can_write_into_is_not_used(parent: Path) -> None:
    open_to_all = parent / f"vllm-sarathi-{os.geteuid()}"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    exporter.share_with_engines(inherits=False)
    assert server_folder.DIRECTORY_VARIABLE not in os.environ
    assert not list(open_to_all.iterdir())


def test_where_no_folder_can_be_made_an_engine_runs_without(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(parent / "none"))
    monkeypatch.chdir(parent)
    exporter.share_with_engines(inherits=False)
    assert server_folder.DIRECTORY_VARIABLE not in os.environ
    engine("0")
    assert shown("0") == [None]
    assert not list(parent.iterdir())


def test_an_engine_whose_folder_is_not_there_runs_without(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server_folder.DIRECTORY_VARIABLE, str(parent / "of-another-node"))
    engine("0")
    assert shown("0") == [None]
    assert not list(parent.iterdir())
