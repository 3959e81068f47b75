"""Follows each step from its schedule to its result: learns, counts, logs."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.logger import init_logger

from vllm_sarathi.metrics.objectives import ObjectivesRecorder
from vllm_sarathi.metrics.recorder import FaultPlace, StepRecorder
from vllm_sarathi.metrics.step_log import EngineState, ScheduledStep
from vllm_sarathi.policy.decode_pause import DecodePause
from vllm_sarathi.policy.least_gap import WINDOW, LeastGap
from vllm_sarathi.policy.micro_batch import evenness
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import Outlook
from vllm_sarathi.policy.step import StepPlan
from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.scheduler.promises import Promises
from vllm_sarathi.scheduler.snapshot import Snapshot
from vllm_sarathi.scheduler.step_logger import StepLogger
from vllm_sarathi.scheduler.step_timer import StepTimer

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler


class StepObserver:
    """What a scheduler tells about its steps.

    Args:
        policy: its step-time model learns from each result.
        promises: what requests were promised; they are told of every token.
        recorder: counts, or None.
        least_gap: tells objectives that cannot be met.
        num_stages: pipeline stages.
        step_logger: writes the step log, or None.
    """

    def __init__(
        self,
        policy: Policy,
        promises: Promises,
        recorder: StepRecorder | None,
        least_gap: LeastGap,
        num_stages: int = 1,
        step_logger: StepLogger | None = None,
    ) -> None:
        self._policy = policy
        self.promises = promises
        self._recorder = recorder
        self._least_gap = least_gap
        self._num_stages = num_stages
        self._timer = StepTimer[ScheduledStep](num_stages)
        self._step_logger = step_logger
        self.last: tuple[StepPlan, Snapshot] | None = None
        self._pause = DecodePause()
        self._is_as_planned = False

    @property
    def logs_steps(self) -> bool:
        """Whether there is a step log, which follows every token."""
        return self._step_logger is not None

    @property
    def outlook(self) -> Outlook:
        """What the steps so far mean for the next one."""
        flying = list(self._timer.in_flight)
        if self._num_stages > 1:
            period_s = max((step.predicted_s for step in flying), default=0.0)
            return Outlook(time.monotonic(), period_s, self._is_as_planned)
        begin_s, pause, safety = time.monotonic(), self._pause, self._policy.step_time.safety.value
        for step in flying:
            begin_s += step.predicted_s
            pause = pause.after(step.num_decodes_paused, step.predicted_s * safety)
        return Outlook(begin_s, 0.0, self._is_as_planned, pause.paused_s)

    def unplanned(self, output: Any) -> None:
        """Note that vLLM scheduled a step alone: who has ended; its duration is nobody's."""
        self._is_as_planned = False
        self._timer.idle()
        self.promises.scheduled(output, ())
        if self._step_logger:
            self._step_logger.passed_over(output)
        if self._recorder:
            self._recorder.count_schedule(None, (), output.finished_req_ids)
            if output.num_scheduled_tokens:
                self._recorder.count_unplanned()

    def scheduled(
        self, plan: StepPlan, snapshot: Snapshot, output: Any, admitted: list[Any]
    ) -> None:
        """Note what vLLM scheduled.

        Args:
            plan: the plan.
            snapshot: what it was made from.
            output: vLLM's ``SchedulerOutput``.
            admitted: requests that the step moved from waiting to running.
        """
        self.last = plan, snapshot
        tokens = output.num_scheduled_tokens
        chunks = [r for r in (*snapshot.prefills, *admitted) if r.request_id in tokens]
        engine = None
        if self._step_logger and tokens:
            ahead = sum(1 for _ in self._timer.in_flight)
            engine = self._step_logger.scheduled(snapshot, output, chunks, len(admitted), ahead)
        step = self._describe(plan, output, chunks, engine) if tokens else None
        self.promises.scheduled(output, chunks)
        num_prefill = step.num_prefill_tokens if step else 0
        self._is_as_planned = num_prefill >= plan.num_prefill_tokens > 0
        if step:
            self._timer.scheduled(output, step)
        else:
            self._timer.idle()
            if self._step_logger:
                self._step_logger.passed_over(output)
        if self._recorder:
            self._recorder.count_schedule(step, chunks, output.finished_req_ids)
            self._count_waiting(self._recorder.objectives, admitted)
            if step and plan.admission_blocked_by:
                first = self.promises.objectives(snapshot.first_waiting)
                self._recorder.objectives.blocked(first, plan.admission_blocked_by)

    def finished(
        self, output: Any, drained: bool, answers: Mapping[int, Any] | None = None
    ) -> None:
        """Learn from a result.

        Args:
            output: the ``SchedulerOutput`` that it answers.
            drained: whether no request is left.
            answers: vLLM's ``EngineCoreOutputs`` of each client.
        """
        follows_tokens = self.promises.follows_tokens
        if answers:
            self.promises.came(answers)
        together_s = [step.predicted_s for step in self._timer.in_flight]
        result = self._timer.finished(output, drained)
        if self._step_logger:
            self._step_logger.came(answers or {}, result[0] if result else None)
        if result is None:
            return
        step, duration_s = result
        pause = self._pause
        self._pause = pause.after(step.num_decodes_paused, duration_s or step.predicted_s)
        if duration_s is not None:
            self._policy.step_time.observe(step.work, duration_s)
            self.promises.finished(step.num_prefill_tokens, duration_s, step.is_full)
            if not step.num_prefill_tokens and self._policy.step_time.is_warm:
                self._decoded_alone(duration_s, step.num_decodes)
        if self._recorder:
            if step.objective_s and duration_s is not None and not follows_tokens:
                gap_s = duration_s * self._num_stages
                num_late = pause.num_late(step.num_decodes, gap_s, step.objective_s)
                self._recorder.objectives.late_tokens(num_late)
            safety = self._policy.step_time.safety.value
            self._recorder.count_result(step, duration_s, safety)
        even = evenness(together_s, self._num_stages) if self._num_stages > 1 else None
        if self._recorder and even:
            self._recorder.count_evenness(even)
        if self._step_logger:
            self._step_logger.finished(step, duration_s, even.idle_share if even else None, drained)

    def too_late(self, requests: Iterable[Any], shed: frozenset[Any]) -> None:
        """Note who can no longer be in time: who of them was shed, while the others step aside."""
        if self._recorder:
            count = self._recorder.objectives
            for request in requests:
                told = count.shed if request in shed else count.relegated
                told(self.promises.objectives(request))
        if self._step_logger:
            self._step_logger.too_late(requests, shed)

    def _decoded_alone(self, duration_s: float, num_decodes: int) -> None:
        """Learn from a step without prefill what gaps are possible, and tell it once."""
        least, is_first = self._least_gap, self._least_gap.gap_s is None
        if not least.observe(duration_s) or least.gap_s is None:
            return
        if self._recorder:
            self._recorder.set_least_gap(least.gap_s)
        missed = least.out_of_reach() if is_first else {}
        if missed:
            logger.warning(
                "objectives that cannot be met: %s (ms). Without any prefill a gap takes %.3g ms "
                "(median of %d steps, %d decodes in the last), and up to %.3g ms with the spread "
                "of step times: set objectives above that, with room for prefill.",
                ", ".join(f"{name}={ms:g}" for name, ms in missed.items()),
                1e3 * least.gap_s,
                WINDOW,
                num_decodes,
                1e3 * least.gap_s * self._policy.step_time.safety.value,
            )

    def fault(self, where: FaultPlace, error: Exception) -> None:
        """Note an exception in our part of a step."""
        if self._recorder:
            self._recorder.count_fault(where)
        if self._step_logger:
            self._step_logger.fault(where, error)

    def _describe(
        self, plan: StepPlan, output: Any, chunks: list[Any], engine: EngineState | None
    ) -> ScheduledStep:
        tokens = output.num_scheduled_tokens
        context = sum(
            tokens[r.request_id] * (r.num_computed_tokens - tokens[r.request_id] / 2)
            for r in chunks
        )
        blocked_by = plan.admission_blocked_by
        work = StepWork(output.total_num_scheduled_tokens, context, plan.decode_context_tokens)
        return ScheduledStep(
            work=work,
            num_decodes=len(tokens) - len(chunks),
            num_prefill_tokens=sum(tokens[r.request_id] for r in chunks),
            token_budget=plan.token_budget,
            limit=plan.limit.value,
            num_decodes_paused=len(plan.skipped_decodes) if plan.pauses_decodes else 0,
            predicted_s=self._policy.step_time.predict(work),
            objective_s=plan.objective_s,
            admission_blocked_by=blocked_by.value if blocked_by else None,
            engine=engine,
        )

    def _count_waiting(self, recorder: ObjectivesRecorder, admitted: list[Any]) -> None:
        for request in admitted:
            if not request.num_preemptions:
                waiting_s = time.time() - request.arrival_time
                recorder.waited(self.promises.objectives(request), waiting_s)
