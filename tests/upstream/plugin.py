"""A pytest plugin that runs vLLM's own tests on this project's schedulers.

``.ci/upstream_tests.py`` loads it with ``-p plugin`` and sets two environment variables:

- ``UPSTREAM_SETTINGS``: settings of ``SarathiConfig`` as JSON, which the schedulers get
  whatever configuration a test builds; absent: vLLM's own schedulers run.
- ``UPSTREAM_OUTCOMES``: a file that gets a JSON line for each phase of each test: set-up,
  call, teardown.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest


def pytest_configure() -> None:
    """Replace vLLM's scheduler classes before any test module imports them."""
    settings = os.environ.get("UPSTREAM_SETTINGS")
    if settings is not None:
        replace_schedulers(json.loads(settings))


def replace_schedulers(settings: dict[str, Any]) -> None:
    """Let vLLM's two scheduler modules export this project's classes.

    Args:
        settings: what each scheduler finds in ``additional_config["sarathi"]``.
    """
    from vllm.v1.core.sched import async_scheduler, scheduler

    import vllm_sarathi
    from vllm_sarathi.scheduler.faults import Faults

    Faults.are_raised = True

    class Configured:
        """Gives the scheduler class that follows it in the MRO its settings."""

        def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
            vllm_config.additional_config = {"sarathi": settings}
            super().__init__(vllm_config, *args, **kwargs)  # type: ignore[call-arg]  # vLLM's

    class Scheduler(Configured, vllm_sarathi.SarathiScheduler):
        pass

    class AsyncScheduler(Configured, vllm_sarathi.AsyncSarathiScheduler):
        pass

    scheduler.Scheduler = Scheduler
    async_scheduler.AsyncScheduler = AsyncScheduler


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a phase of a test ended, at once: a crash loses no earlier test."""
    crash = getattr(report.longrepr, "reprcrash", None)
    line = {
        "test": report.nodeid,
        "when": report.when,
        "outcome": report.outcome,
        "message": crash.message if crash else "",
    }
    with Path(os.environ["UPSTREAM_OUTCOMES"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
