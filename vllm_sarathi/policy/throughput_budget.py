"""How many tokens the next batch may hold where nothing but throughput counts."""

from dataclasses import dataclass

from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.policy.token_budget import candidates

SPREAD = 6
"""Over so many batches prefill is spread at most. Measured on an A100, Llama-3-8B, output tokens/s
of 1,000 requests (1,184 tokens in, 86 out, on average) in a KV cache of 30,000 and of 100,000
tokens, and of others with shared prefixes: all in one batch 684, 841 and 1929; over 2 batches 717,
860, 1985; 4: 751, 865, 2047; 6: 764, 865, 2076; 8: 765, 856, 2078."""


@dataclass(frozen=True, slots=True)
class ThroughputTokenBudget:
    """The batch size whose prefill adds least time to the decodes that run anyway.

    Decodes alone read all weights and leave most of the arithmetic idle: prefill that rides on
    them is cheap up to a point. So prefill is spread over the next few batches, while decodes go
    on, and cut where a tile ends.

    Unlike BatchLLM's (arXiv 2412.03594), batches are not simply as large as KV memory lets them
    be: what is admitted follows KV memory, what a step does of it the learned step time.

    Attributes:
        model: predicts step times; the scheduler teaches it.
    """

    model: StepTimeModel

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests."""
        decodes, most = view.num_decode_tokens, view.max_num_scheduled_tokens
        everything = BatchSize(most, BatchLimit.MAXIMUM)
        if not (decodes and self.model.is_warm):
            return everything
        least = decodes + view.num_prefill_tokens / SPREAD
        sizes = [work for work in candidates(view, most) if work.num_tokens >= least]
        if not sizes:
            return everything
        decodes_s = self.model.predict(StepWork(decodes, 0.0, view.decode_context_tokens))

        def cost(work: StepWork) -> tuple[float, int]:
            added_s = self.model.predict(work) - decodes_s
            return added_s / (work.num_tokens - decodes), -work.num_tokens

        best = min(sizes, key=cost)
        return everything if best is sizes[-1] else BatchSize(best.num_tokens, BatchLimit.TILE)
