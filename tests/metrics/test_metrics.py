import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from tests.support.engineless import Engine
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.metrics import exporter


def sample(engine: Engine, name: str) -> float:
    scheduler: Any = engine.scheduler
    registry: CollectorRegistry = scheduler._recorder.registry
    labels = {"engine": "0", "model_name": scheduler.vllm_config.model_config.served_model_name}
    value = registry.get_sample_value(f"vllm_sarathi:{name}", labels)
    assert value is not None, name
    return value


@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
def test_the_figures_are_those_of_what_vllm_scheduled(ours: type) -> None:
    engine = Engine(ours, {"preset": "stall-free", "token_budget": 256})
    engine.add("decode", 20, max_tokens=40)
    for _ in range(4):
        engine.step()
    engine.add("long", 600, max_tokens=1)
    engine.run()
    batches = [batch.split() for batch in engine.batches if batch != "-"]
    tokens = {kind: [int(p[1:]) for b in batches for p in b if p[0] == kind] for kind in "DP"}
    assert sample(engine, "step_prefill_tokens_sum") == sum(tokens["P"]) == 620
    assert sample(engine, "step_decode_tokens_sum") == sum(tokens["D"])
    assert sample(engine, "step_prefill_tokens_count") == len(batches)
    assert sample(engine, "piggybacked_decodes_total") == 3
    assert sample(engine, "prompt_chunks_sum") == 4
    assert sample(engine, "prompt_chunks_count") == 2
    assert sample(engine, "step_token_budget_count") == 4
    assert sample(engine, "schedule_overhead_seconds_count") == len(engine.batches)


def test_an_aborted_prefill_is_forgotten() -> None:
    from vllm.v1.request import RequestStatus

    engine = Engine(SarathiScheduler, {"preset": "stall-free", "token_budget": 256})
    engine.add("long", 600)
    engine.step()
    engine.scheduler.finish_requests("long", RequestStatus.FINISHED_ABORTED)
    engine.add("other", 10, max_tokens=1)
    engine.run()
    assert engine.scheduler._recorder._chunks == {}
    assert sample(engine, "prompt_chunks_count") == 1


def test_settings_show_as_an_info_metric() -> None:
    engine = Engine(SarathiScheduler, {"preset": "stall-free", "token_budget": 99})
    text = generate_latest(engine.scheduler._recorder.registry).decode()
    line = next(row for row in text.splitlines() if row.startswith("vllm_sarathi:settings_info{"))
    assert 'preset="stall-free"' in line
    assert 'token_budget="99"' in line


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
