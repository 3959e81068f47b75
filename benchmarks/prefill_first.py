"""The scheduler of vLLM before chunked prefills, for comparison with the papers.

Sarathi-Serve (section 2.5) calls it prefill-prioritizing: whenever a waiting prompt
can be admitted, a batch of whole prompts runs and every decode waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class PrefillFirstScheduler(Scheduler):
    """Whole prompts alone while any can be admitted, else decodes alone."""

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
