"""What the step log says of each step. Nothing of it runs while there is no such log."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.kv_cache_interface import SlidingWindowSpec

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.step_log import EngineState, ScheduledStep, StepLog
from vllm_sarathi.metrics.token_gaps import Asked, TokenGaps
from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.scheduler.promises import Promises
from vllm_sarathi.scheduler.snapshot import Snapshot


@dataclass(slots=True)
class StepLogger:
    """Follows steps, queues and answers for the step log.

    Attributes:
        log: gets the lines.
        promises: what requests were promised.
    """

    log: StepLog
    promises: Promises
    _gaps: TokenGaps = field(default_factory=TokenGaps)
    _aside: Counter[str] = field(default_factory=Counter)
    _shed: Counter[str] = field(default_factory=Counter)
    _returned_s: float | None = None
    _between_s: float = 0.0
    _ended_s: float = 0.0

    def begin(self, settings: SarathiConfig, scheduler: Any) -> None:
        """Write what the lines after it were recorded with."""
        config, kv_cache = scheduler.vllm_config, scheduler.kv_cache_config
        scheduling, parallel = config.scheduler_config, config.parallel_config
        block_size = config.cache_config.block_size
        classes = {asked.qos: _objectives(asked) for asked in self.promises.reader.of_classes}
        begun = {
            "num_stages": parallel.pipeline_parallel_size,
            "max_num_batched_tokens": scheduling.max_num_batched_tokens,
            "max_num_seqs": scheduling.max_num_seqs,
            "async_scheduling": bool(scheduling.async_scheduling),
            "long_prefill_token_threshold": scheduling.long_prefill_token_threshold,
            "policy": str(scheduling.policy),
            "num_spec_tokens": scheduler.num_spec_tokens,
            "v2_model_runner": bool(scheduler.use_v2_model_runner),
            "max_model_len": scheduler.max_model_len,
            "block_size": block_size,
            # As vLLM's log counts them: groups of layers share the blocks.
            "num_kv_tokens": kv_cache.num_blocks // len(kv_cache.kv_cache_groups) * block_size,
            "kv_windows": [_window(group.kv_cache_spec) for group in kv_cache.kv_cache_groups],
            "settings": settings.model_dump(mode="json"),
            "classes": classes,
        }
        self.log.write({"begin": begun})

    def scheduled(
        self, snapshot: Snapshot, output: Any, chunks: Iterable[Any], num_admitted: int, ahead: int
    ) -> EngineState:
        """Note a schedule, and what the engine was like.

        Args:
            snapshot: what the plan was made from.
            output: vLLM's ``SchedulerOutput``.
            chunks: requests of which it runs a prefill chunk.
            num_admitted: requests that it moved from waiting to running.
            ahead: steps in flight before it.
        """
        now_s, monotonic_s = time.time(), time.monotonic()
        if self._returned_s is not None:
            self._between_s, self._returned_s = monotonic_s - self._returned_s, None
        gaps, preempted = self._gaps, output.preempted_req_ids or ()
        gaps.forget(output.finished_req_ids)
        gaps.preempted(preempted)
        for request in chunks:
            if not request.is_prefill_chunk and request.sampling_params is not None:
                arrival_s = request.arrival_time - now_s + monotonic_s
                gaps.expect(_asked(request), self.promises.objectives(request), arrival_s)
        state, order = snapshot.state, self.promises.order
        return EngineState(
            scheduled_s=round(now_s, 6),
            num_in_flight=ahead + 1,
            num_running=state.kv.num_running + num_admitted - len(preempted),
            num_waiting=state.num_waiting - num_admitted + len(preempted),
            num_aside=0 if order is None else order.num_aside,
            num_admitted=num_admitted,
            num_preempted=len(preempted),
            kv_usage=round(1 - state.kv.num_free_blocks / max(state.kv.num_blocks, 1), 4),
        )

    def passed_over(self, output: Any) -> None:
        """Note a schedule that gets no line: it found nothing to run, or vLLM made it alone."""
        self._returned_s = None
        self._gaps.forget(output.finished_req_ids)
        self._gaps.preempted(output.preempted_req_ids or ())

    def too_late(self, requests: Iterable[Any], shed: frozenset[Any]) -> None:
        """Note who can no longer be in time, and who of them was shed for it."""
        for request in requests:
            count = self._shed if request in shed else self._aside
            count[self.promises.objectives(request).qos] += 1

    def came(self, answers: Mapping[int, Any], step: ScheduledStep | None) -> None:
        """Note the tokens that a step brought, in vLLM's ``EngineCoreOutputs`` of each client."""
        # The step ends in this moment, for its line too: gaps reach from one to the other.
        self._ended_s, now_s = time.time(), time.monotonic()
        auto_s = step.objective_s if step else None
        for group in answers.values():
            self._gaps.came(group.outputs, now_s, auto_s)

    def finished(
        self,
        step: ScheduledStep,
        duration_s: float | None,
        stage_idle_share: float | None,
        drained: bool,
    ) -> None:
        """Write the line of a step, whose tokens have come."""
        line = step.line() | {"duration_s": duration_s, "ended_s": round(self._ended_s, 6)}
        if stage_idle_share is not None:
            line["stage_idle_share"] = round(stage_idle_share, 4)
        for name, count in (("relegated", self._aside), ("shed", self._shed)):
            if count:
                line[name] = dict(count)
                count.clear()
        # From the result before to the end of the schedule that followed it: the engine core did
        # all but wait for the model.
        line["between_s"], self._between_s = round(self._between_s, 6), 0.0
        self.log.write(line | self._gaps.take())
        self._returned_s = None if drained else time.monotonic()

    def fault(self, where: str, error: Exception) -> None:
        """Write a line about an exception in our part of a step."""
        self.log.write({"fault": where, "error": repr(error)})


def _window(spec: Any) -> int | None:
    """Tokens that a group of layers keeps in the KV cache; None where it keeps every one."""
    # Layers of one kind whose shapes differ; others have a spec of their own.
    one = next(iter(getattr(spec, "kv_cache_specs", {}).values()), spec)
    return one.sliding_window if isinstance(one, SlidingWindowSpec) else None


def _asked(request: Any) -> Asked:
    """A request whose last chunk of prefill was scheduled."""
    stats = request.prefill_stats
    num_cached = stats.num_cached_tokens if stats else 0
    return Asked(
        request.request_id,
        request.arrival_time,
        request.num_prompt_tokens,
        num_cached,
        request.priority,
    )


def _objectives(asked: RequestObjectives) -> dict[str, float]:
    """Those of a class that are set, in seconds."""
    found = {f"{kind}_s": limit_s for kind, limit_s in asked.by_kind_s.items()}
    return found if asked.max_stall_s is None else found | {"max_stall_s": asked.max_stall_s}
