from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from vllm.v1.request import RequestStatus

from tests.support.engineless import Engine
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler


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
