"""Stretches of steps that only decode: run without asking the scheduler each time.

While nothing waits, arrives, finishes or lacks memory, vLLM's own scheduler and ours put
the same decodes into every batch. Such steps are executed one by one as ever, on the same
clock and stages, and ours learns from each, but the scheduler's counters move once for
all of them. Any other class is asked at every step. Tests compare every token's time with
and without.
"""

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.simulator.engine.clock import VirtualClock
from vllm_sarathi.simulator.machine.pipeline import Execution, Pipeline

if TYPE_CHECKING:  # it imports vLLM, which takes seconds
    from vllm_sarathi.scheduler.observer import StepObserver

# Shorter stretches cost more to set up than they save.
FEWEST_STEPS = 4
InFlight = deque[tuple[Any, Execution]]


class StretchObserver(Protocol):
    """Who is told of steps in a stretch."""

    def scheduled(self, now_s: float, output: Any, run: Execution) -> None:
        """A batch was scheduled and sent off."""

    def answered_alike(self, names: list[str], times_s: list[float]) -> None:
        """Each of these requests got one token at each of these times."""

    def last_token_s(self, names: list[str]) -> float | None:
        """When all of these got their last token; None if at different times."""

    def should_stop(self, now_s: float) -> bool:
        """Whether to end the run here."""


def repeat(observer: "StepObserver", output: Any, decode_context_tokens: int) -> None:
    """Tell our scheduler's observer of one more batch of the same decodes.

    Args:
        observer: of our scheduler, which was not asked for this batch.
        output: vLLM's ``SchedulerOutput`` of the last one.
        decode_context_tokens: sum of their context lengths by now.
    """
    assert observer.last is not None
    plan, snapshot = observer.last
    plan = replace(plan, decode_context_tokens=decode_context_tokens)
    observer.scheduled(plan, snapshot, output, [])


class Stretch:
    """Runs stretches for one scheduler.

    Args:
        scheduler: a vLLM scheduler.
        pipeline: what executes a batch.
        clock: virtual time.
        observer: who is told.
        max_in_flight: vLLM's ``max_concurrent_batches``.
    """

    def __init__(
        self,
        scheduler: Any,
        pipeline: Pipeline,
        clock: VirtualClock,
        observer: StretchObserver,
        max_in_flight: int,
    ) -> None:
        self.scheduler, self.pipeline = scheduler, pipeline
        self.clock, self.observer = clock, observer
        self.num_in_flight = max_in_flight - 1
        self.learner: StepObserver | None = getattr(scheduler, "step_observer", None)
        one_stage = len(pipeline.deployment.stages) == 1
        keeps_tokens = pipeline.deployment.kv_windows == (None,)  # no step frees blocks
        # Where early tokens earn slack, each answer changes the next step; a log follows each.
        ignores_tokens = self.learner is None or not (
            self.learner.promises.follows_tokens or self.learner.logs_steps
        )
        plain = one_stage and keeps_tokens and ignores_tokens
        self.possible = plain and max_in_flight <= 2 and _is_known(scheduler)

    def run(self, in_flight: InFlight, output: Any, until_s: float) -> bool:
        """Run as many steps as are all alike.

        Args:
            in_flight: batches sent off and not answered.
            output: vLLM's ``SchedulerOutput`` of the step before.
            until_s: the next arrival or the end of the run, in virtual seconds.

        Returns:
            Whether any step was run.
        """
        requests = self.scheduler.running
        num = len(requests)
        if not num or not self.possible or self.scheduler.waiting:
            return False
        if output.total_num_scheduled_tokens != num or output.scheduled_new_reqs:
            return False
        if len(in_flight) != self.num_in_flight or any(r.is_prefill_chunk for r in requests):
            return False
        most = self._most_steps(requests)
        names = [request.request_id for request in requests]
        if most < FEWEST_STEPS or list(output.num_scheduled_tokens) != names:
            return False
        if self.observer.last_token_s(names) is None:
            return False
        times_s = self._execute(in_flight, output, names, most, until_s)
        if times_s:
            self._advance(requests, len(times_s))
        return bool(times_s)

    def _most_steps(self, requests: list[Any]) -> int:
        """Steps before a request may finish or memory may run out."""
        # One token may be on its way, and the last step is left to the scheduler.
        left = min(r.max_tokens - len(r._output_token_ids) for r in requests) - 2
        manager = self.scheduler.kv_cache_manager
        blocks = manager.block_pool.get_num_free_blocks() // len(requests) - 1
        return int(min(left, blocks * self.scheduler.block_size))

    def _execute(
        self, in_flight: InFlight, output: Any, names: list[str], most: int, until_s: float
    ) -> list[float]:
        clock, overhead, num = self.clock, self.pipeline.overhead, len(names)
        schedule_s = overhead.schedule_s + num * overhead.schedule_request_s
        update_s = overhead.update_s + num * overhead.update_request_s
        context = sum(request.num_computed_tokens for request in self.scheduler.running)
        sampled = frozenset(names)
        times_s: list[float] = []
        while len(times_s) < most and clock.now_s < until_s:
            began_s = clock.now_s
            if self.learner is not None:
                repeat(self.learner, output, context)
            clock.now_s += schedule_s
            run = self.pipeline.execute(clock.now_s, StepWork(num, 0.0, context), sampled)
            self.observer.scheduled(began_s, output, run)
            in_flight.append((output, run))
            answered, oldest = in_flight.popleft()
            clock.now_s = max(clock.now_s, oldest.ready_s)
            if self.learner is not None:
                self.learner.finished(answered, drained=False)
            clock.now_s += update_s
            times_s.append(clock.now_s)
            context += num
        self.observer.answered_alike(names, times_s)
        return times_s

    def _advance(self, requests: list[Any], num_steps: int) -> None:
        """Leave the scheduler as so many steps would have."""
        from vllm_sarathi.scheduler.vllm_versions import step_counters

        scheduler, tokens = self.scheduler, [0] * num_steps
        for name in step_counters(scheduler):
            setattr(scheduler, name, getattr(scheduler, name) + num_steps)
        for request in requests:
            scheduler.kv_cache_manager.allocate_slots(request, num_steps, num_lookahead_tokens=0)
            request.num_computed_tokens += num_steps
            request._output_token_ids += tokens
            request._all_token_ids += tokens
            if request.next_decode_eligible_step:
                request.next_decode_eligible_step += num_steps


def _is_known(scheduler: Any) -> bool:
    """Whether every part that a stretch passes over is vLLM's own or ours."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from vllm_sarathi.scheduler.mixin import AsyncSarathiScheduler, SarathiScheduler

    known = (Scheduler, AsyncScheduler, SarathiScheduler, AsyncSarathiScheduler)
    if type(scheduler) not in known:
        return False
    # Cached blocks are ordered by when they filled up, which a stretch does not keep; nor does it
    # know how many drafts are accepted.
    plain = not scheduler.kv_cache_manager.enable_caching and not scheduler.num_spec_tokens
    return plain and hasattr(scheduler, "current_step")
