"""Schedulers that do not work, named by their paths."""

from collections import deque
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class Idler(Scheduler):
    """Never schedules anything."""

    running: list[Any]
    waiting: Any

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        running, self.running = self.running, []
        waiting, self.waiting = self.waiting, deque()
        try:
            return super().schedule(*args, **kwargs)
        finally:
            self.running, self.waiting = running, waiting


class Raiser(Scheduler):
    """Fails at its first step."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no")
