"""From settings to the policy that they name."""

from vllm_sarathi.batch_builder import MIN_PREFILL_TOKENS, BatchBuilder, DecodeMaximal, StallFree
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.token_budget import FixedTokenBudget


def batch_builder(
    config: SarathiConfig, min_prefill_tokens: int = MIN_PREFILL_TOKENS
) -> BatchBuilder:
    """The batch builder of a preset.

    Args:
        config: the settings.
        min_prefill_tokens: least prefill tokens that a batch has room for.
    """
    tile_size = config.tile_size if isinstance(config.tile_size, int) else 1
    if config.preset == "decode-maximal":
        return DecodeMaximal(config.batch_tokens, tile_size, min_prefill_tokens)
    budget = FixedTokenBudget(config.batch_tokens)
    return StallFree(budget, tile_size, config.max_prefills_per_batch, min_prefill_tokens)
