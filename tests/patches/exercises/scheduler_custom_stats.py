"""A scheduler's own figures reach vLLM's stat loggers."""

from typing import Any

import pytest
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.metrics.loggers import AggregatedLoggingStatLogger
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import SarathiScheduler


class Counting(SarathiScheduler):
    def make_custom_stats(self) -> dict[str, float]:
        return {"running": len(self.running), "faults": 0.5}


@pytest.fixture
def loop() -> SchedulerLoop:
    return SchedulerLoop(Counting).with_decodes()


def stats_of(loop: SchedulerLoop) -> Any:
    """The scheduler's statistics as the front end gets them."""
    sent = EngineCoreOutputs(scheduler_stats=loop.scheduler.make_stats())
    received = MsgpackDecoder(EngineCoreOutputs).decode(MsgpackEncoder().encode(sent))
    return received.scheduler_stats


def test_figures_come_through_to_the_front_end(loop: SchedulerLoop) -> None:
    assert stats_of(loop).custom_stats == {"running": 3, "faults": 0.5}


def test_figures_of_data_parallel_ranks_are_summed(loop: SchedulerLoop) -> None:
    logger = AggregatedLoggingStatLogger(loop.scheduler.vllm_config, [0, 1])
    for rank in (0, 1):
        logger.record(stats_of(loop), None, engine_idx=rank)
    logger.aggregate_scheduler_stats()
    assert logger.last_scheduler_stats.custom_stats == {"running": 6, "faults": 1.0}
