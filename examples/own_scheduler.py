"""A scheduler of one's own: this package's, with another batch builder.

Decodes come first. Batches are small while little prefill waits, so that gaps between tokens are
short, and grow with the prefill that waits. vLLM's queues and its ``schedule()`` stay as they are.
In this folder, beside a static budget of stock vLLM:

    vllm-sarathi compare stock:256 own_scheduler.AsyncBacklogAware --rate 8 --requests 200

A server takes the same dotted path, and its /metrics shows what the scheduler does:

    export PYTHONPATH=.
    vllm serve MODEL --scheduler sarathi --scheduler-cls own_scheduler.AsyncBacklogAware
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
        min_prefill_tokens: prefill tokens that a batch always has room for.
    """

    min_tokens: int
    max_tokens: int
    min_prefill_tokens: int

    def plan(self, view: StepView) -> StepPlan:
        """Compose the next batch."""
        wanted = min(self.min_tokens + view.num_prefill_tokens // 8, self.max_tokens)
        floor = view.num_decode_tokens + self.min_prefill_tokens
        total, limit = round_to_tile(view, wanted, BatchLimit.TOKEN_BUDGET, TILE, floor)
        return fill_batch(
            view, total, limit, max_prefills=None, min_prefill_tokens=self.min_prefill_tokens
        )


class AsyncBacklogAware(AsyncSarathiScheduler):
    """Derive from ``SarathiScheduler`` for engines with ``async_scheduling=False``."""

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """What decides: the builder. The model only predicts step times, for the step log."""
        builder = BacklogAware(256, 1024, max(16, min_chunk))
        return Policy(step_time or StepTimeModel(), builder)
