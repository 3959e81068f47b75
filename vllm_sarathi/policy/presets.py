"""From settings to the policy that they name."""

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import (
    MIN_PREFILL_TOKENS,
    DecodeMaximal,
    StallFree,
    TokenBudget,
)
from vllm_sarathi.policy.level_order import LevelOrder
from vllm_sarathi.policy.micro_batch import Cohorts
from vllm_sarathi.policy.order import PREFILL_WEIGHTS, WaitingOrder
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.prefix_order import PrefixOrder
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.throughput_budget import ThroughputTokenBudget
from vllm_sarathi.policy.token_budget import FixedTokenBudget, SloTokenBudget


def policy(
    config: SarathiConfig,
    *,
    min_prefill_tokens: int = MIN_PREFILL_TOKENS,
    num_stages: int = 1,
    keeps_paused_decodes: bool = False,
    step_time: StepTimeModel | None = None,
) -> Policy:
    """The policy of a preset.

    Args:
        config: the settings.
        min_prefill_tokens: least prefill tokens that a batch has room for.
        num_stages: pipeline stages.
        keeps_paused_decodes: whether a decode loses nothing by sitting a step out.
        step_time: predicts step times; None learns them from scratch.
    """
    model = step_time or StepTimeModel()
    if config.preset == "observe":
        return Policy(model, None, SloTokenBudget(model, num_stages), num_stages=num_stages)
    balances = num_stages > 1 and config.balance_micro_batches is not False
    cohorts = Cohorts(num_stages) if balances else None
    if config.preset == "decode-maximal":
        fixed = DecodeMaximal(config.batch_tokens, config.batch_multiple, min_prefill_tokens)
        return Policy(model, fixed, cohorts=cohorts, num_stages=num_stages)
    budget: SloTokenBudget | None = None
    if config.follows_gaps or (balances and config.preset != "stall-free"):
        by_rate = config.tile_size is not None
        budget = SloTokenBudget(model, num_stages, balances, by_rate)
    fixed_or_free: TokenBudget = ThroughputTokenBudget(model)
    if config.preset == "stall-free":
        fixed_or_free = FixedTokenBudget(config.batch_tokens)
    builder = StallFree(
        budget or fixed_or_free,
        config.batch_multiple,
        config.max_prefills_per_batch,
        min_prefill_tokens,
    )
    return Policy(
        model,
        builder,
        budget,
        cohorts,
        pauses_decodes=budget is not None
        and keeps_paused_decodes
        and budget.by_rate
        and num_stages == 1
        and config.max_prefills_per_batch is None,
        num_stages=num_stages,
    )


def order(config: SarathiConfig) -> WaitingOrder | None:
    """The order of those that wait; None leaves it to vLLM."""
    name = config.waiting_order
    if name == "fcfs":
        return None
    kinds: dict[str, type[WaitingOrder]] = {"prefix": PrefixOrder, "mlfq": LevelOrder}
    return kinds.get(name, WaitingOrder)(PREFILL_WEIGHTS[name])
