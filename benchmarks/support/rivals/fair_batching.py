"""FairBatching: fairness-aware batch formation (arXiv 2510.14392).

Source: its abstract and descriptions of its method; no code of the authors was found. Not known:
how chunks are cut (here the last one fills the batch), and what a late request's slack is worth
(here it stays negative, so that the budget is a TPOT). The admission budget, which tells a load
balancer what an engine can take, is left out: there is one engine. Step times are those
that our model learns, in place of the paper's profile of three coefficients.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from math import inf

from support.goodput_rivals import AllJoin
from support.rivals.delegation import (
    Anchor,
    DeadlinePolicy,
    DeadlineRival,
    joined_by,
    may_skip_decodes,
)

from vllm_sarathi.policy.state import Due, SchedulerState
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepPlan, StepView
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.policy.token_budget import candidates


@dataclass(frozen=True, slots=True)
class LargestInTime:
    """The largest batch predicted to end within ``StepView.due``.

    Attributes:
        model: predicts step times.
    """

    model: StepTimeModel

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests."""
        largest = 0
        for work in candidates(view, view.max_num_scheduled_tokens):
            if self.model.predict(work) > view.due.in_s:
                return BatchSize(largest, BatchLimit.OBJECTIVE)
            largest = work.num_tokens
        return BatchSize(largest, BatchLimit.MAXIMUM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fair(DeadlinePolicy):
    """Urgent decodes, then prefills, then the other decodes, within a budget of time.

    The objective for the time per token is the least budget.
    """

    def plan(self, state: SchedulerState) -> StepPlan:
        """Plan the next batch."""
        decodes, begin_s = state.decodes, state.outlook.begin_s
        slacks_s = list(self.deadlines.slacks_s(decodes, begin_s))
        budget_s = max(min(slacks_s, default=inf), self.tpot_s)
        due = Due(budget_s, self.tpot_s)
        by_slack = sorted(range(len(slacks_s)), key=slacks_s.__getitem__)
        num_urgent = sum(slack_s < budget_s + self.tpot_s for slack_s in slacks_s)
        urgent, others = decodes.at(by_slack[:num_urgent]), decodes.at(by_slack[num_urgent:])
        plan = AllJoin.plan(self, replace(state, due=due, decodes=urgent))
        if not plan.chunks or not may_skip_decodes(state):
            return AllJoin.plan(self, replace(state, due=due))
        num_joining = bisect_right(
            range(1, len(others.requests) + 1),
            budget_s,
            key=lambda num: self.step_time.predict(self._work(joined_by(plan, others, num), state)),
        )
        return joined_by(plan, others, num_joining)

    def _work(self, plan: StepPlan, state: SchedulerState) -> StepWork:
        """What is in a batch; chunks of requests beyond the view begin at no context."""
        computed = {r.request_id: r.num_computed_tokens for r in (*state.prefills, *state.waiting)}
        context = sum(
            chunk.num_tokens * (computed.get(chunk.request_id, 0) + chunk.num_tokens / 2)
            for chunk in plan.chunks
        )
        num_tokens = plan.num_decode_tokens + plan.num_prefill_tokens
        return StepWork(num_tokens, context, plan.decode_context_tokens)


class FairBatching(DeadlineRival):
    """FairBatching; ``anchor`` tells from when on TPOT counts, arrival if not.

    Prompts are served by arrival, which is the order of their slack where all have one objective.
    """

    POLICY, BUDGET, ANCHOR = Fair, LargestInTime, Anchor.ARRIVAL
