"""P-PAS: Prefill-Pressure Adaptive Scheduling (arXiv 2608.15171, algorithm 1).

Source: the paper's repository, github.com/TimoSaemann/ppas-vllm. It needs no step times. Its two
budgets are set by hand for each model; here they are vLLM's default and the best static budget.
"""

from dataclasses import dataclass

from support.goodput_rivals import AllJoin
from support.rivals.delegation import Rival

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import StepTimeModel

PRESSURE = 2
"""Prefills that run or wait from which decodes beside them are under pressure."""


@dataclass(frozen=True, slots=True)
class PressureBudget:
    """A small budget while several prefills compete with decodes, else a large one.

    Unlike the authors' patch, decodes are served before prefills.

    Attributes:
        most: tokens of a batch without pressure.
        cap: tokens of a batch under pressure.
    """

    most: int
    cap: int

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests."""
        num_prefills = len(view.prefills) + view.backlog.num_waiting
        num_decodes = view.num_decodes + view.num_other_decodes
        is_pressed = num_prefills >= PRESSURE and num_decodes > 0
        return BatchSize(self.cap if is_pressed else self.most, BatchLimit.TOKEN_BUDGET)


class PPas(Rival):
    """P-PAS; ``cap`` tells the budget under pressure, 512 if not. Prompts are served by arrival."""

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """Two budgets."""
        budget = PressureBudget(self.max_num_scheduled_tokens, self.told.get("cap", 512))
        builder = StallFree(budget, min_prefill_tokens=max(1, min_chunk))
        return AllJoin(step_time or StepTimeModel(), builder)
