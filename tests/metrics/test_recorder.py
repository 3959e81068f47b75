import pytest
from prometheus_client import generate_latest
from vllm.v1.request import RequestStatus

from tests.support.metrics import sample
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler


@pytest.mark.parametrize("ours", [SarathiScheduler, AsyncSarathiScheduler])
def test_the_figures_are_those_of_what_vllm_scheduled(ours: type) -> None:
    loop = SchedulerLoop(ours, {"preset": "stall-free", "token_budget": 256})
    loop.add("decode", 20, max_tokens=40)
    for _ in range(4):
        loop.step()
    loop.add("long", 600, max_tokens=1)
    loop.run()
    batches = [batch.split() for batch in loop.batches if batch != "-"]
    tokens = {kind: [int(p[1:]) for b in batches for p in b if p[0] == kind] for kind in "DP"}
    assert sample(loop, "step_prefill_tokens_sum") == sum(tokens["P"]) == 620
    assert sample(loop, "step_decode_tokens_sum") == sum(tokens["D"])
    assert sample(loop, "step_prefill_tokens_count") == len(batches)
    assert sample(loop, "piggybacked_decodes_total") == 3
    assert sample(loop, "prompt_chunks_sum") == 4
    assert sample(loop, "prompt_chunks_count") == 2
    assert sample(loop, "step_budget_tokens_count") == 4
    assert sample(loop, "schedule_overhead_seconds_count") == len(loop.batches)


def test_an_aborted_prefill_is_forgotten() -> None:
    loop = SchedulerLoop(SarathiScheduler, {"preset": "stall-free", "token_budget": 256})
    loop.add("long", 600)
    loop.step()
    loop.scheduler.finish_requests("long", RequestStatus.FINISHED_ABORTED)
    loop.add("other", 10, max_tokens=1)
    loop.run()
    assert loop.scheduler._recorder._chunks == {}
    assert sample(loop, "prompt_chunks_count") == 1


def test_settings_show_as_an_info_metric() -> None:
    loop = SchedulerLoop(SarathiScheduler, {"preset": "stall-free", "token_budget": 99})
    text = generate_latest(loop.scheduler._recorder.catalogue.registry).decode()
    line = next(row for row in text.splitlines() if row.startswith("vllm_sarathi:settings_info{"))
    assert 'preset="stall-free"' in line
    assert 'token_budget="99"' in line
