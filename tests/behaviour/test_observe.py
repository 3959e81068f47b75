"""The preset "observe" measures and predicts, and changes no decision of vLLM's."""

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.scheduler_loop import SchedulerLoop
from tests.support.step_log import logged_steps
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler

OBSERVE = {"preset": "observe"}


@settings(max_examples=40)
@given(
    traffic=st.lists(
        st.tuples(st.integers(1, 3000), st.integers(1, 30), st.integers(0, 4)),
        min_size=1,
        max_size=10,
    ),
    num_blocks=st.sampled_from([210, 400, 5000]),
    order=st.sampled_from(["fcfs", "priority"]),
    caching=st.booleans(),
    num_stages=st.sampled_from([1, 2]),
    is_async=st.booleans(),
)
def test_every_batch_and_preemption_is_stocks(
    traffic: list[tuple[int, int, int]],
    num_blocks: int,
    order: str,
    caching: bool,
    num_stages: int,
    is_async: bool,
) -> None:
    seen = []
    pair = (AsyncScheduler, AsyncSarathiScheduler) if is_async else (Scheduler, SarathiScheduler)
    for kind in pair:
        loop = SchedulerLoop(
            kind,
            {**OBSERVE, "ttft_slo_ms": 100, "tbt_slo_ms": 1} if kind is pair[1] else None,
            num_blocks=num_blocks,
            in_flight=num_stages + is_async,
            scheduling_policy=order,
            enable_prefix_caching=caching,
            pipeline_parallel_size=num_stages,
        )
        for i, (num_prompt, max_tokens, num_steps) in enumerate(traffic):
            prompt = [j % 7 for j in range(num_prompt)]
            loop.add(f"r{i}", prompt=prompt, max_tokens=max_tokens, priority=-i)
            for _ in range(num_steps):
                loop.step()
        loop.run()
        seen.append((loop.batches, loop.preempted, loop.outputs))
    assert seen[0] == seen[1]


def test_steps_are_counted_predicted_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    loop = SchedulerLoop(SarathiScheduler, {**OBSERVE, "step_log": str(log)}).with_decodes()
    loop.add("long", 3000)
    loop.run()
    steps = logged_steps(log)
    assert max(step["num_prefill_tokens"] for step in steps) == 2045
    assert steps[-1]["predicted_s"] > 0
    assert steps[-1]["objective_s"] > 0


@pytest.mark.parametrize(
    "setting", [{"token_budget": 512}, {"tile_size": 128}, {"balance_micro_batches": True}]
)
def test_a_setting_that_would_decide_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="has no meaning with preset='observe'"):
        SchedulerLoop(SarathiScheduler, {**OBSERVE, **setting})


def test_the_start_up_line_reaches_vllms_log_with_every_setting() -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    kept, logger = Kept(), logging.getLogger("vllm")
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        SchedulerLoop(SarathiScheduler, {**OBSERVE, "tbt_slo_ms": 40})
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
    (line,) = (line for line in lines if line.startswith("SARATHI"))
    assert "preset='observe' (set)" in line
    assert "tbt_slo_ms=40.0 (set)" in line
    assert "ttft_slo_ms=None (default)" in line
