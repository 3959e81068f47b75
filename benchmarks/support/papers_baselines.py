"""The schedulers that the papers compare with, as classes of today's vLLM.

Sarathi-Serve (section 2.5) calls it prefill-prioritizing: whenever a waiting prompt
can be admitted, a batch of whole prompts runs and every decode waits. SARATHI compares
with Orca's pipeline: whole prompts and decodes in micro-batches of a fixed size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class PrefillFirstScheduler(Scheduler):
    """Whole prompts alone while any can be admitted, else decodes alone."""

    running: list[Any]
    waiting: Any
    max_num_active_reqs: int

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Prefills alone if any can be admitted; else what runs already."""
        if self.waiting and len(self.running) < self.max_num_running_reqs:
            with self._alone():
                output = super().schedule(*args, **kwargs)
            if output.total_num_scheduled_tokens or not self.running:
                return output
        waiting, self.waiting = self.waiting, type(self.waiting)()
        try:
            return super().schedule(*args, **kwargs)
        finally:
            # What was preempted meanwhile goes before those that wait.
            preempted, self.waiting = list(self.waiting), waiting
            for request in reversed(preempted):
                self.waiting.prepend_request(request)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        running, active = self.running, self.max_num_active_reqs
        self.running = []
        self.max_num_active_reqs = active - len(running)
        try:
            yield
        finally:
            self.running = running + self.running
            self.max_num_active_reqs = active


class OrcaScheduler(Scheduler):
    """Whole prompts and decodes together, in micro-batches of at most 27 requests.

    That is what memory holds in SARATHI's pipeline (section 5.3). For pipelines
    without asynchronous scheduling, with ``enable_chunked_prefill=False``.
    """

    micro_batch = 27
    running: list[Any]
    max_num_active_reqs: int

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Show vLLM one micro-batch of the requests that are not in flight."""
        running, active = self.running, self.max_num_active_reqs
        ready = [r for r in running if r.num_tokens > r.num_computed_tokens][: self.micro_batch]
        shown = set(ready)
        self.running = ready
        seats = active - len(running) + len(ready)
        self.max_num_active_reqs = min(self.micro_batch, seats)
        try:
            return super().schedule(*args, **kwargs)
        finally:
            kept = set(self.running)
            survivors = [r for r in running if r in kept or r not in shown]
            self.running = survivors + [r for r in self.running if r not in shown]
            self.max_num_active_reqs = active
