"""What composes batches: from the state of vLLM's scheduler to a plan."""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from vllm_sarathi.policy.admission import backlog
from vllm_sarathi.policy.batch_builder import BatchBuilder
from vllm_sarathi.policy.company import Company
from vllm_sarathi.policy.micro_batch import Cohorts
from vllm_sarathi.policy.running_order import arranged
from vllm_sarathi.policy.state import Decodes, SchedulerState
from vllm_sarathi.policy.step import BatchLimit, StepPlan, StepView
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.token_budget import SloTokenBudget


@dataclass(frozen=True, slots=True)
class Policy:
    """What composes batches, and what it learns from.

    Attributes:
        step_time: learns from every step.
        builder: composes the next batch; None leaves every batch to vLLM.
        budget: the budget that follows an objective, under the preset "slo".
        cohorts: spreads decodes over micro-batches; None puts all into each batch.
        pauses_decodes: whether decodes may sit batches out within their objective.
        num_stages: pipeline stages, each of which a decode passes for every token.
    """

    step_time: StepTimeModel
    builder: BatchBuilder | None = None
    budget: SloTokenBudget | None = None
    cohorts: Cohorts | None = None
    pauses_decodes: bool = False
    num_stages: int = 1

    def observing(self) -> "Policy":
        """The same, but it leaves every batch to vLLM."""
        return replace(self, builder=None, cohorts=None, pauses_decodes=False)

    def keeps_pace(self, company: Company) -> bool:
        """Whether those that run together are predicted to keep the tightest pace among them."""
        return company.keeps_pace(self.step_time, self.num_stages)

    def plan(self, state: SchedulerState) -> StepPlan:
        """Plan the next batch."""
        view, decodes, postponed = self._view(state)
        objective_s = self._objective_s(view)
        if self.builder is None:
            return StepPlan(
                token_budget=view.max_num_scheduled_tokens,
                num_decode_tokens=view.num_decode_tokens,
                decode_context_tokens=view.decode_context_tokens,
                limit=BatchLimit.VLLM,
                objective_s=objective_s,
            )
        plan = self.builder.plan(view)
        paused = tuple(decodes.requests) if plan.pauses_decodes else postponed
        admits_freely = not plan.chunks and view.backlog.admission_blocked_by is None
        plan = replace(
            plan,
            skipped_decodes=paused,
            max_new_prefills=None if admits_freely else plan.max_new_prefills,
            objective_s=objective_s,
            admission_blocked_by=view.backlog.admission_blocked_by,
        )
        if not plan.chunks:
            return plan
        return arranged(plan, state, 0 if plan.pauses_decodes else view.num_decodes)

    def _view(self, state: SchedulerState) -> tuple[StepView, Decodes, tuple[Any, ...]]:
        """What the batch is composed of, its decodes, and the requests of those postponed."""
        decodes, postponed = state.decodes, tuple[Any, ...]()
        if self.cohorts is not None:
            if _may_skip_decodes(state, decodes):
                decodes, postponed = self.cohorts.choose(decodes, state.num_decodes)
            else:
                self.cohorts.skip()
        may_pause = (
            self.pauses_decodes
            and state.outlook.is_as_planned
            and bool(state.prefills or state.waiting)
            and _may_skip_decodes(state, decodes)
        )
        view = StepView(
            max_num_scheduled_tokens=state.max_num_scheduled_tokens,
            num_decodes=len(decodes.requests),
            num_decode_tokens=sum(decodes.num_tokens),
            decode_context_tokens=sum(decodes.contexts),
            prefills=state.prefills,
            backlog=backlog(state, self.keeps_pace),
            num_other_decodes=state.num_decodes - len(decodes.requests),
            due=state.due,
            may_pause=may_pause,
            outlook=state.outlook,
            max_chunk=state.max_chunk,
        )
        return view, decodes, postponed

    def _objective_s(self, view: StepView) -> float | None:
        """The objective for the time between tokens, in seconds, where there is one."""
        if self.budget is None:
            return None
        objective_s = self.budget.objective_s(view)
        return objective_s if isfinite(objective_s) else None


def _may_skip_decodes(state: SchedulerState, decodes: Decodes) -> bool:
    """Whether vLLM can do without seeing some decodes in this step.

    It has to see whom it would preempt, and which adapters run.
    """
    if state.has_adapters:
        return False
    num_tokens = min(state.num_prefill_tokens, state.max_num_scheduled_tokens)
    num_tokens += sum(decodes.num_tokens)
    return state.kv.num_sure_tokens(state.kv.num_running) >= num_tokens
