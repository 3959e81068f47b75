"""A fixed share of compute time for prefill.

Source: descriptions of ``--prefill-compute-share`` (github.com/local-inference-lab/vllm, pull
requests 612 and 664); a share of 0.4 is what its users run. Decodes and prefill take turns by
weighted virtual time while both could run; a prefill turn has decodes in what it leaves empty.
Unlike there, a turn is charged the time that our model predicts, not the measured one, for
another turn is planned before it has ended.
"""

from dataclasses import dataclass, field, replace

from support.goodput_rivals import AllJoin
from support.rivals.delegation import Rival, joined_by, may_skip_decodes

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import NO_DECODES, SchedulerState
from vllm_sarathi.policy.step import BatchLimit, RunningOrder, StepPlan
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.policy.token_budget import FixedTokenBudget


@dataclass(slots=True)
class VirtualTime:
    """Weighted time that decodes and prefill had since both wanted to run."""

    decode_s: float = 0.0
    prefill_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns(AllJoin):
    """Gives decodes and prefill turns.

    Attributes:
        share: of the time for prefill, while decodes want to run too.
        time: what each had.
    """

    share: float
    time: VirtualTime = field(default_factory=VirtualTime)

    def plan(self, state: SchedulerState) -> StepPlan:
        """Plan the next batch."""
        plan = AllJoin.plan(self, replace(state, decodes=NO_DECODES))
        if not (plan.chunks and state.decodes.requests and may_skip_decodes(state)):
            self.time.decode_s = self.time.prefill_s = 0.0
            return AllJoin.plan(self, state)
        if self.time.decode_s <= self.time.prefill_s:
            plan = self._decodes_alone(state)
            self.time.decode_s += self._step_s(plan, state) / (1 - self.share)
            return plan
        room = max(state.max_num_scheduled_tokens - plan.num_prefill_tokens, 0)
        plan = joined_by(plan, state.decodes, room)
        self.time.prefill_s += self._step_s(plan, state) / self.share
        return plan

    def _decodes_alone(self, state: SchedulerState) -> StepPlan:
        return StepPlan(
            token_budget=sum(state.decodes.num_tokens),
            num_decode_tokens=sum(state.decodes.num_tokens),
            decode_context_tokens=sum(state.decodes.contexts),
            max_new_prefills=0,
            limit=BatchLimit.CHUNK_SIZE,
            order=RunningOrder.DECODES_FIRST,
            overtaken=frozenset(request.request_id for request in state.prefills),
        )

    def _step_s(self, plan: StepPlan, state: SchedulerState) -> float:
        first = next(iter((*state.prefills, *state.waiting)))
        num_prefill = plan.num_prefill_tokens
        context = num_prefill * (first.num_computed_tokens + num_prefill / 2)
        num_tokens = plan.num_decode_tokens + num_prefill
        step_s = self.step_time.predict(StepWork(num_tokens, context, plan.decode_context_tokens))
        return step_s or 1e-3  # before any was seen, turns alternate by the share


class ComputeShare(Rival):
    """A fixed share for prefill; ``share`` tells it, 0.4 if not. Prompts are served by arrival."""

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """Turns."""
        budget = FixedTokenBudget(self.max_num_scheduled_tokens)
        builder = StallFree(budget, min_prefill_tokens=max(1, min_chunk))
        return Turns(step_time or StepTimeModel(), builder, share=self.told.get("share", 0.4))
