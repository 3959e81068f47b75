"""A scheduler of one's own: this package's, with another batch builder.

Decodes come first. Batches are small while little prefill waits, so that gaps between tokens are
short, and grow with the prefill that waits. vLLM's queues and its ``schedule()`` stay as they are.
In this folder, beside two static budgets of stock vLLM:

    vllm-sarathi compare stock:256 stock:1024 own_scheduler.AsyncMine --rate 8 --requests 200

A server takes the same path:

    PYTHONPATH=. vllm serve MODEL --scheduler-cls own_scheduler.AsyncMine
"""

from dataclasses import dataclass

from vllm_sarathi import AsyncSarathiScheduler, SarathiConfig
from vllm_sarathi.policy.batch_builder import fill_batch, round_to_tile
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.step import BatchLimit, StepPlan, StepView
from vllm_sarathi.policy.step_time import StepTimeModel

TILE = 128


@dataclass(frozen=True, slots=True)
class BacklogAware:
    """Composes batches that grow with the prefill that waits.

    Attributes:
        min_tokens: tokens of a batch, decodes included, while hardly any prefill waits.
        max_tokens: tokens of a batch at most.
        min_prefill: prefill tokens that a batch has room for, however many decodes there are.
    """

    min_tokens: int
    max_tokens: int
    min_prefill: int

    def plan(self, view: StepView) -> StepPlan:
        """Compose the next batch."""
        wanted = min(self.min_tokens + view.num_prefill_tokens // 8, self.max_tokens)
        floor = view.num_decode_tokens + self.min_prefill
        total, limit = round_to_tile(view, wanted, BatchLimit.TOKEN_BUDGET, TILE, floor)
        return fill_batch(view, total, limit, max_prefills=None, min_chunk=self.min_prefill)


class AsyncMine(AsyncSarathiScheduler):
    """Derive from ``SarathiScheduler`` for engines with ``async_scheduling=False``."""

    def make_policy(
        self, settings: SarathiConfig, least_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """What decides: the builder. The model only predicts step times, for the step log."""
        builder = BacklogAware(256, 1024, max(16, least_chunk))
        return Policy(step_time or StepTimeModel(), builder)
