"""How many tokens the next batch may hold where nothing but throughput counts."""

from dataclasses import dataclass

from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.policy.token_budget import candidates

SPREAD = 6
"""A batch holds at least one in so many of the prefill tokens that are there. Measured on an A100,
Llama-3-8B, output tokens/s of 1,000 requests (1,184 tokens in, 86 out, on average) in a KV cache
of 30,000 and of 100,000 tokens, and of others with shared prefixes: all in one batch 684, 841 and
1929; at least half 717, 860, 1985; a fourth 751, 865, 2047; a sixth 764, 865, 2076; an eighth 765,
856, 2078."""

_LEVEL_EXCESS = 0.005
"""How much dearer a token of a larger batch may be for that batch still to win: where all cost the
same, more batches gain nothing, and the first token comes later. Measured as above: 764 and 864
with none, 765 and 865 with this or four times as much. The mean time of requests under "mlfq" in
overload (benchmarks/job_completion.py, 1.1 of capacity): 19.3, 19.5 and 20.0 s."""


@dataclass(frozen=True, slots=True)
class ThroughputTokenBudget:
    """The batch size whose prefill adds least time to the decodes that run anyway.

    Decodes alone read all weights and leave most of the arithmetic idle: prefill that rides on
    them is cheap up to a point. So prefill is spread over the next few batches, while decodes go
    on, and cut where a tile ends; where no size is cheaper for each token, the largest wins.

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

        def cost(work: StepWork) -> float:
            # Wherever prompts are cut, their tokens attend to as many others in the end.
            added_s = self.model.predict(work._replace(chunk_context=0.0)) - decodes_s
            return added_s / (work.num_tokens - decodes)

        costs = list(map(cost, sizes))
        limit = min(costs) + _LEVEL_EXCESS * abs(min(costs))
        best = max(at for at, each in enumerate(costs) if each <= limit)
        if best == len(sizes) - 1:
            return everything
        return BatchSize(sizes[best].num_tokens, BatchLimit.TILE)
