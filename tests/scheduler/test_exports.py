import gc
import threading
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from support.server import free_port

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import SarathiScheduler
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.scheduler import exports


def test_without_vllms_statistics_nothing_is_counted_or_logged() -> None:
    others = set(threading.enumerate())  # those of other tests may end meanwhile
    assert exports.recorder_of(SimpleNamespace(log_stats=False), SarathiConfig(), ()) is None
    assert set(threading.enumerate()) <= others


def test_lines_in_the_log_are_as_far_apart_as_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOG_STATS_INTERVAL", "7")
    intervals_s = list[float]()

    def log(registry: object, prefix: str, interval_s: float) -> Callable[[], None]:
        intervals_s.append(interval_s)
        return lambda: None

    monkeypatch.setattr(exports, "log_regularly", log)
    SchedulerLoop(SarathiScheduler, {})
    assert intervals_s == [7]


def test_an_engine_serves_its_metrics_on_its_own_port_as_long_as_its_scheduler_lives() -> None:
    others, port = set(threading.enumerate()), free_port()
    loop = SchedulerLoop(SarathiScheduler, {"metrics_port": port})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b"vllm_sarathi:settings_info{" in answer.read()
    threads = set(threading.enumerate()) - others
    assert threads
    del loop
    gc.collect()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
