"""vLLM's engine loop in virtual time, around a real scheduler.

Mirrors ``EngineCoreProc.run_busy_loop``, ``EngineCore.step`` and
``EngineCore.step_with_batch_queue`` of vllm/v1/engine/core.py: which is called in
which order, and when new requests are seen. Only the model runner is replaced, by
``Pipeline`` and, with speculative decoding, ``Drafts``. As in vLLM, drafts go to the
scheduler after each step; with async scheduling it counts on them without seeing them.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.simulator.engine.clock import VirtualClock
from vllm_sarathi.simulator.engine.speculation import Drafts
from vllm_sarathi.simulator.engine.stretch import Stretch
from vllm_sarathi.simulator.machine.pipeline import Execution, Pipeline

# vLLM sleeps so long after a step that executed nothing while requests wait.
EMPTY_STEP_S = 0.001
# A scheduler that gets so much time without doing anything will never do anything.
DEADLOCK_S = 10.0
NOTHING_ACCEPTED: Mapping[str, int] = {}


class SchedulerDeadlockError(RuntimeError):
    """The scheduler has requests and no batch in flight, and schedules nothing."""


class Observer(Protocol):
    """Who is told what the engine does."""

    def scheduled(self, now_s: float, output: Any, run: Execution) -> None:
        """A batch was scheduled and sent off; ``now_s`` is when scheduling began."""

    def answered(self, now_s: float, outputs: Any) -> None:
        """A batch came back: ``outputs`` is what ``update_from_output`` returned."""

    def should_stop(self, now_s: float) -> bool:
        """Whether to end the run here."""


class Source(Protocol):
    """Where requests come from."""

    @property
    def next_arrival_s(self) -> float | None:
        """When the next request arrives; None after the last."""

    def take(self) -> Any:
        """The next request, as vLLM's ``Request``."""


@dataclass(slots=True)
class EngineLoop:
    """See arrivals, schedule, execute, update.

    Args:
        scheduler: a vLLM scheduler.
        pipeline: what executes a batch.
        source: where requests come from.
        observer: who is told.
        clock: virtual time.
        max_in_flight: vLLM's ``max_concurrent_batches``.
        limit_s: virtual time at which the run ends at the latest.
        stretch: what runs steps that are all alike; None asks the scheduler each time.
        drafts: of speculative decoding; None without.
    """

    scheduler: Any
    pipeline: Pipeline
    source: Source
    observer: Observer
    clock: VirtualClock
    max_in_flight: int
    limit_s: float
    stretch: Stretch | None = None
    drafts: Drafts | None = None
    last_output: Any = None
    _has_in_flight: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether it has anything to do before the next request comes."""
        return self._has_in_flight or self.scheduler.has_requests()

    def steps(self) -> Iterator[None]:
        """Run step by step, each time that there is work; end at the limit or when stopped.

        Raises:
            SchedulerDeadlockError: with the state of the queues.
        """
        in_flight: deque[tuple[Any, Execution]] = deque()
        step = self._step if self.max_in_flight == 1 else self._step_with_queue
        idle_since_s: float | None = None
        while True:
            self._see_arrivals()
            if self.clock.now_s >= self.limit_s or self.observer.should_stop(self.clock.now_s):
                return
            began_s = self.clock.now_s
            if step(in_flight):
                idle_since_s = None
                self._stretch(in_flight)
            else:
                if not self.scheduler.has_requests() or any(run.num_tokens for _, run in in_flight):
                    idle_since_s = None
                elif idle_since_s is None:
                    idle_since_s = began_s
                elif began_s - idle_since_s > DEADLOCK_S:
                    raise SchedulerDeadlockError(self._state())
                if self.scheduler.has_requests():
                    self.clock.now_s += EMPTY_STEP_S
            self._has_in_flight = bool(in_flight)
            yield

    def _stretch(self, in_flight: deque[tuple[Any, Execution]]) -> None:
        """Run the steps that are like the one before."""
        if self.stretch is not None and self.stretch.possible:
            due_s = self.source.next_arrival_s
            until_s = self.limit_s if due_s is None else min(due_s, self.limit_s)
            self.stretch.run(in_flight, self.last_output, until_s)

    def _see_arrivals(self) -> None:
        """Add what has arrived."""
        source, clock = self.source, self.clock
        due_s = source.next_arrival_s
        while due_s is not None and due_s <= clock.now_s:
            self.scheduler.add_request(source.take())
            due_s = source.next_arrival_s

    def _step(self, in_flight: deque[tuple[Any, Execution]]) -> bool:
        """One batch, start to end (``EngineCore.step`` and ``post_step``)."""
        output, run = self._schedule()
        self._answer(output, run)
        if self.drafts is not None and run.num_tokens:
            self.scheduler.update_draft_token_ids(self.drafts.of(list(output.num_scheduled_tokens)))
        return run.num_tokens > 0

    def _step_with_queue(self, in_flight: deque[tuple[Any, Execution]]) -> bool:
        """Fill the queue first, answer the oldest batch else (``step_with_batch_queue``)."""
        executed = False
        if self.scheduler.has_requests():
            output, run = self._schedule()
            executed = run.num_tokens > 0
            in_flight.append((output, run))
            if len(in_flight) < self.max_in_flight and (executed or self.scheduler.has_requests()):
                return executed
        self._answer(*in_flight.popleft())
        return executed

    def _schedule(self) -> tuple[Any, Execution]:
        began_s = self.clock.now_s
        output = self.last_output = self.scheduler.schedule()
        requests, sampled = self.scheduler.requests, []
        drafts = output.scheduled_spec_decode_tokens
        decode_context, chunk_context = 0, 0.0
        for name, num_tokens in output.num_scheduled_tokens.items():
            request = requests[name]
            context = request.num_computed_tokens - num_tokens
            if num_tokens == 1 or name in drafts:
                decode_context += context
            else:
                chunk_context += num_tokens * (context + num_tokens / 2)
            if not request.is_prefill_chunk:
                sampled.append(name)
        work = StepWork(output.total_num_scheduled_tokens, chunk_context, decode_context)
        overhead = self.pipeline.overhead
        num_requests = len(output.num_scheduled_tokens)
        self.clock.now_s += overhead.schedule_s + num_requests * overhead.schedule_request_s
        num_drafts = sum(map(len, drafts.values()))
        run = self.pipeline.execute(self.clock.now_s, work, frozenset(sampled), num_drafts)
        self.observer.scheduled(began_s, output, run)
        return output, run

    def _answer(self, output: Any, run: Execution) -> None:
        """Wait for a batch and give its tokens to the scheduler."""
        clock, overhead = self.clock, self.pipeline.overhead
        clock.now_s = max(clock.now_s, run.ready_s)
        accepted = self._accepted(output)
        answer = model_runner_output(output.num_scheduled_tokens, run.sampled, accepted)
        outputs = self.scheduler.update_from_output(output, answer)
        if run.num_tokens:
            num_requests = len(output.num_scheduled_tokens)
            clock.now_s += overhead.update_s + num_requests * overhead.update_request_s
        self.observer.answered(clock.now_s, outputs)

    def _accepted(self, output: Any) -> dict[str, int]:
        """How many drafts of a batch are accepted, by request; nothing where there are none."""
        requests, drafts = self.scheduler.requests, self.drafts
        return {
            name: drafts.num_accepted(requests[name], len(tokens))
            for name, tokens in output.scheduled_spec_decode_tokens.items()
            if drafts is not None and name in requests
        }

    def _state(self) -> str:
        scheduler = self.scheduler
        running = [
            f"{r.request_id} ({r.num_computed_tokens}/{r.num_tokens} tokens computed)"
            for r in scheduler.running[:8]
        ]
        usage = scheduler.kv_cache_manager.usage
        return (
            f"{type(scheduler).__name__} scheduled nothing for {DEADLOCK_S:g} s of virtual time, "
            f"with nothing in flight, at {self.clock.now_s:.3f} s: {len(scheduler.running)} "
            f"running {running}, {len(scheduler.waiting)} waiting, KV cache {usage:.0%} full"
        )


def model_runner_output(
    scheduled: dict[str, int],
    sampled: frozenset[str],
    accepted: Mapping[str, int] = NOTHING_ACCEPTED,
) -> Any:
    """What vLLM's model runner would answer: token 0 for each request that gets one.

    Args:
        scheduled: tokens of each request in the batch.
        sampled: the requests that get a token.
        accepted: how many drafts each of them gets besides.
    """
    from vllm.v1.outputs import ModelRunnerOutput

    names = list(scheduled)
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index=dict(zip(names, range(len(names)), strict=True)),
        sampled_token_ids=[
            [0] * (1 + accepted.get(name, 0)) if name in sampled else [] for name in names
        ],
    )
