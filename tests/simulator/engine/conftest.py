"""Schedulers as the simulator builds them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """Makes schedulers as the simulator does, without its shortcuts."""
    with ExitStack() as stack:

        def make(kind: str = "Scheduler", **settings: Any) -> Any:
            engine = EngineSettings(async_scheduling=kind == "AsyncScheduler", **settings)
            scheduler, _ = stack.enter_context(gpu_engine(engine, 1, 100_000, 8192))
            return scheduler

        yield make
