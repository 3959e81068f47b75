"""Our schedulers over vLLM's real ones, without an engine."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler

DECODE_MAXIMAL = {"preset": "decode-maximal", "chunk_size": 128, "tile_size": 128}
STALL_FREE = {"preset": "stall-free", "token_budget": 256}
OURS = [SarathiScheduler, AsyncSarathiScheduler]


def decoding(scheduler_class: type, settings: dict[str, Any], **options: Any) -> SchedulerLoop:
    """A loop with three requests that decode."""
    return SchedulerLoop(scheduler_class, settings, **options).with_decodes()


def snapshot_of_levers(loop: SchedulerLoop) -> tuple[Any, ...]:
    scheduler = loop.scheduler
    names = ("max_num_scheduled_tokens", "max_num_running_reqs", "max_num_active_reqs")
    return tuple(getattr(scheduler, name, None) for name in names)


@pytest.mark.parametrize("ours", OURS)
def test_a_decode_never_waits_for_a_prefill(ours: type) -> None:
    loop = decoding(ours, STALL_FREE)
    loop.add("long", 1000, max_tokens=1)
    loop.run()
    assert loop.batches[:4] == ["D3 P253", "D3 P253", "D3 P253", "D3 P241"]


@pytest.mark.parametrize("ours", OURS)
def test_decode_maximal_runs_one_chunk_a_batch_and_whole_tiles(ours: type) -> None:
    loop = decoding(ours, DECODE_MAXIMAL)
    loop.add("first", 300, max_tokens=9)
    loop.add("second", 130, max_tokens=9)
    loop.run()
    assert loop.batches[:5] == ["D3 P125", "D3 P125", "D3 P50", "D4 P124", "D4 P6"]


def test_stock_vllm_stalls_the_same_decodes() -> None:
    loop = decoding(Scheduler, {})
    loop.add("long", 1000, max_tokens=1)
    loop.run()
    assert loop.batches[0] == "D3 P1000"


@pytest.mark.parametrize(
    ("settings", "batch"), [(STALL_FREE, "D3 P16 P237"), (DECODE_MAXIMAL, "D3 P16")]
)
def test_a_cached_prefix_leaves_its_room_to_the_next_request_unless_one_is_the_limit(
    settings: dict[str, Any], batch: str
) -> None:
    loop = decoding(SarathiScheduler, settings, enable_prefix_caching=True)
    loop.add("warm", prompt=[5] * 160, max_tokens=1)
    while "warm" in loop.scheduler.requests:
        loop.step()
    loop.batches.clear()
    loop.add("cached", prompt=[5] * 160, max_tokens=4)
    loop.add("next", 400, max_tokens=4)
    loop.step()
    assert loop.batches == [batch]


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("ours", OURS)
def test_under_kv_pressure_no_token_is_lost_and_no_more_is_preempted_than_by_stock(
    ours: type, policy: str
) -> None:
    stock = AsyncScheduler if issubclass(ours, AsyncScheduler) else Scheduler
    outputs, preempted = [], []
    for scheduler_class in (stock, ours):
        loop = SchedulerLoop(scheduler_class, STALL_FREE, num_blocks=40, scheduling_policy=policy)
        for i in range(8):
            loop.add(f"r{i}", 60 + 30 * i, max_tokens=60, priority=-i if policy != "fcfs" else 0)
        loop.run()
        outputs.append(loop.outputs)
        preempted.append(loop.preempted)
    assert outputs[0] == outputs[1]
    assert len(preempted[1]) <= len(preempted[0])
    assert preempted[0], "the test is meant to preempt"


def test_a_request_is_admitted_only_if_running_ones_can_still_grow() -> None:
    loop = decoding(SarathiScheduler, STALL_FREE, num_blocks=200)
    loop.add("next", 182 * 16, max_tokens=1)
    loop.step()
    assert loop.batches == ["D3"]
    loop.run()
    assert loop.preempted == []
    assert len(loop.outputs["next"]) == 1


def test_no_second_request_is_admitted_into_the_blocks_kept_for_growth() -> None:
    loop = decoding(SarathiScheduler, STALL_FREE, num_blocks=200)
    loop.add("fits", 32, max_tokens=1)
    loop.add("does not", 180 * 16, max_tokens=1)
    loop.step()
    assert loop.batches == ["D3 P32"]
    loop.run()
    assert loop.preempted == []


def test_a_prefix_that_running_requests_hold_needs_no_room() -> None:
    loop = SchedulerLoop(SarathiScheduler, STALL_FREE, num_blocks=40, enable_prefix_caching=True)
    loop.add("first", prompt=[5] * 320, max_tokens=40)
    for _ in range(4):
        loop.step()
    loop.add("second", prompt=[5] * 320, max_tokens=2)
    loop.add("third", 320, max_tokens=2)
    loop.step()
    assert loop.batches[-1] == "D1 P16"


def out_of_order(num_blocks: int, settings: dict[str, Any]) -> SchedulerLoop:
    """``running`` is a prefill, then a decode: a cap on chunks let the later one overtake."""
    loop = SchedulerLoop(SarathiScheduler, settings, num_blocks=num_blocks)
    loop.scheduler.scheduler_config.long_prefill_token_threshold = 100
    loop.add("long", 600, max_tokens=4)
    loop.add("short", 31, max_tokens=40)
    loop.step()
    loop.scheduler.scheduler_config.long_prefill_token_threshold = 0
    loop.batches.clear()
    return loop


def test_a_decode_behind_a_prefill_in_vllms_list_still_runs() -> None:
    loop = out_of_order(1000, STALL_FREE)
    loop.step()
    assert loop.batches == ["D1 P255"]
    assert [r.request_id for r in loop.scheduler.running] == ["long", "short"]


def test_a_reordered_batch_keeps_to_the_kv_blocks_that_are_free() -> None:
    loop = out_of_order(42, STALL_FREE | {"token_budget": 1024})
    loop.step()
    assert loop.batches == ["D1 P447"]
    assert loop.preempted == []


def test_without_free_kv_blocks_the_prefill_sits_out_so_that_the_victim_stays_vllms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = out_of_order(1000, STALL_FREE)
    pool = loop.scheduler.kv_cache_manager.block_pool
    monkeypatch.setattr(pool, "get_num_free_blocks", lambda: 3)
    loop.step()
    assert loop.batches == ["D1"]
    assert [r.request_id for r in loop.scheduler.running] == ["long", "short"]


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("settings", [DECODE_MAXIMAL, STALL_FREE])
def test_an_abort_in_mid_prefill_frees_its_blocks_and_hurts_nobody(
    ours: type, settings: dict[str, Any]
) -> None:
    loop = decoding(ours, settings)
    free = loop.scheduler.kv_cache_manager.block_pool.get_num_free_blocks
    loop.add("long", 1000)
    loop.step()
    loop.scheduler.finish_requests("long", RequestStatus.FINISHED_ABORTED)
    loop.run()
    assert all(len(loop.outputs[f"decode{i}"]) == 64 for i in range(3))
    assert loop.outputs["long"] == []
    assert free() == loop.scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1


@pytest.mark.parametrize("capped", [False, True])
def test_an_exception_inside_vllms_schedule_leaves_the_queues_whole(
    monkeypatch: pytest.MonkeyPatch, capped: bool
) -> None:
    loop = out_of_order(1000, STALL_FREE) if capped else decoding(SarathiScheduler, STALL_FREE)
    loop.add("long2", 1000)
    running, levers = list(loop.scheduler.running), snapshot_of_levers(loop)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("from allocate_slots")

    with monkeypatch.context() as patched:
        patched.setattr(loop.scheduler.kv_cache_manager, "allocate_slots", fail)
        with pytest.raises(RuntimeError, match="from allocate_slots"):
            loop.step()
    assert loop.scheduler.running == running
    assert [r.request_id for r in loop.scheduler.waiting] == ["long2"]
    assert snapshot_of_levers(loop) == levers


def test_the_limits_that_vllm_reads_are_as_before_after_every_step() -> None:
    loop = decoding(SarathiScheduler, DECODE_MAXIMAL)
    levers = snapshot_of_levers(loop)
    loop.add("long", 500)
    while loop.scheduler.has_unfinished_requests():
        loop.step()
        assert snapshot_of_levers(loop) == levers


def test_more_max_num_seqs_than_budget_still_serves_every_prompt() -> None:
    loop = SchedulerLoop(
        SarathiScheduler, {"preset": "stall-free", "token_budget": 32}, max_num_seqs=256
    )
    for i in range(100):
        loop.add(f"r{i}", 40, max_tokens=50)
    loop.run()
    assert all(len(tokens) == 50 for tokens in loop.outputs.values())


def test_no_more_requests_run_than_max_num_seqs() -> None:
    loop = SchedulerLoop(SarathiScheduler, STALL_FREE, max_num_seqs=3)
    for i in range(9):
        loop.add(f"r{i}", 20, max_tokens=5)
    while loop.scheduler.has_unfinished_requests():
        loop.step()
        assert len(loop.scheduler.running) <= 3


requests = st.lists(
    st.tuples(
        st.integers(1, 700),
        st.integers(1, 30),
        st.integers(0, 12),
        st.booleans(),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40)
@given(
    requests=requests,
    scheduler_class=st.sampled_from(OURS),
    chosen=st.sampled_from(
        [
            DECODE_MAXIMAL,
            STALL_FREE,
            {"preset": "stall-free", "token_budget": 48, "tile_size": 16},
            {"tbt_slo_ms": 1.0},
            {},
        ]
    ),
    num_blocks=st.sampled_from([60, 120, 5000]),
    caching=st.booleans(),
    policy=st.sampled_from(["fcfs", "priority"]),
)
def test_any_traffic_gets_the_tokens_that_stock_vllm_gives(
    requests: list[tuple[int, int, int, bool, int]],
    scheduler_class: type,
    chosen: dict[str, Any],
    num_blocks: int,
    caching: bool,
    policy: str,
) -> None:
    """Requests of (prompt, output, steps until the next, shared prefix, priority)."""
    stock = AsyncScheduler if issubclass(scheduler_class, AsyncScheduler) else Scheduler
    outputs = []
    for tried in (stock, scheduler_class):
        loop = SchedulerLoop(
            tried,
            chosen,
            num_blocks=num_blocks,
            enable_prefix_caching=caching,
            scheduling_policy=policy,
        )
        for i, (num_prompt, num_output, pause, shared, priority) in enumerate(requests):
            prompt = [(i * (not shared) + j) % 1000 for j in range(num_prompt)]
            level = priority if policy == "priority" else 0
            loop.add(f"r{i}", prompt=prompt, max_tokens=num_output, priority=level)
            for _ in range(pause):
                loop.step()
        loop.run()
        outputs.append(loop.outputs)
    assert outputs[1] == outputs[0]
    assert [len(tokens) for tokens in outputs[1].values()] == [r[1] for r in requests]
