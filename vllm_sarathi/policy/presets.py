"""From settings to the policy that they name."""

from dataclasses import dataclass, field
from math import inf, isfinite

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import (
    MIN_PREFILL_TOKENS,
    BatchBuilder,
    DecodeMaximal,
    StallFree,
)
from vllm_sarathi.policy.deadlines import Playback
from vllm_sarathi.policy.step import StepView
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.token_budget import FixedTokenBudget, SloTokenBudget


@dataclass(frozen=True, slots=True)
class Policy:
    """What composes batches, and what it learns from.

    Attributes:
        builder: composes the next batch.
        step_time: learns from every step.
        budget: the budget that follows an objective, under the preset "slo".
        playback: token deadlines, where slack may be used.
    """

    builder: BatchBuilder
    step_time: StepTimeModel = field(default_factory=StepTimeModel)
    budget: SloTokenBudget | None = None
    playback: Playback | None = None

    def objective_s(self, view: StepView) -> float | None:
        """The objective for the time between tokens, in seconds, where there is one."""
        objective_s = self.budget.objective_s(view) if self.budget else inf
        return objective_s if isfinite(objective_s) else None


def policy(
    config: SarathiConfig,
    min_prefill_tokens: int = MIN_PREFILL_TOKENS,
    num_stages: int = 1,
    num_micro_batches: int = 1,
) -> Policy:
    """The policy of a preset.

    Args:
        config: the settings.
        min_prefill_tokens: least prefill tokens that a batch has room for.
        num_stages: pipeline stages.
        num_micro_batches: batches over which work is spread evenly.
    """
    if config.preset == "decode-maximal":
        return Policy(DecodeMaximal(config.batch_tokens, config.batch_multiple, min_prefill_tokens))
    model = StepTimeModel()
    budget = playback = None
    if config.preset == "slo" and (config.tbt_slo_ms is not None or num_micro_batches > 1):
        tbt_s = None if config.tbt_slo_ms == "auto" else (config.tbt_slo_ms or inf) / 1e3
        by_rate = config.tile_size is not None
        max_stall_s = config.max_stall_ms / 1e3 if config.max_stall_ms else None
        budget = SloTokenBudget(model, tbt_s, max_stall_s, num_stages, num_micro_batches, by_rate)
        if tbt_s is not None and max_stall_s is not None:
            playback = Playback(tbt_s)
    builder = StallFree(
        budget or FixedTokenBudget(config.batch_tokens),
        config.batch_multiple,
        config.max_prefills_per_batch,
        min_prefill_tokens,
    )
    return Policy(builder, model, budget, playback)
