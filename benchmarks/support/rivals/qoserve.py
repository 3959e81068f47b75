"""QoServe, first called Niyama (arXiv 2503.22562; ASPLOS 2026).

Source: the paper, and ``deadline_scheduler.py`` of its authors' branch of Sarathi-Serve
(microsoft/sarathi-serve, niyama_asplos2026): sizes, factor and weight are theirs. Left out: the
smaller grid for when KV memory is short, and that a preemption is never needed. Step times are
those that our model learns, in place of the authors' fit of a profile.
"""

from dataclasses import dataclass
from typing import Any

from support.goodput_rivals import NO_AGEING
from support.rivals.delegation import Anchor, DeadlineRival

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.owed import OwedBatches
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.state import Rank
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork

BATCH_TOKENS = (128, *range(256, 2049, 256), 2552)
PREDICTION_FACTOR = 1.2
SECONDS_PER_TOKEN = 0.008
"""How far a token of prefill left postpones a request."""


@dataclass(frozen=True, slots=True)
class DynamicChunk:
    """The largest of some batch sizes that ends before the next token of a decode is due.

    Attributes:
        model: predicts step times.
    """

    model: StepTimeModel

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests: the context is that of the first prompt."""
        first = next(view.prompts)
        chosen = BATCH_TOKENS[0]
        for num_tokens in BATCH_TOKENS:
            chunk = max(num_tokens - view.num_decode_tokens, 0)
            work = StepWork(
                view.num_decode_tokens + chunk,
                chunk * (first.num_computed_tokens + chunk / 2),
                view.decode_context_tokens,
            )
            if PREDICTION_FACTOR * self.model.predict(work) > view.due.in_s:
                return BatchSize(chosen, BatchLimit.OBJECTIVE)
            chosen = num_tokens
        return BatchSize(chosen, BatchLimit.MAXIMUM)


class HybridOrder(WaitingOrder):
    """By deadline and remaining prefill; who cannot be in time is relegated and stays so."""

    __slots__ = ()

    def rank(self, place: Place) -> Rank:
        """Where a request stands: lower is served first."""
        hybrid_s = place.due_s + SECONDS_PER_TOKEN * place.num_tokens
        return place.priority, int(place.is_aside), 0, hybrid_s

    def _latest_s(self, place: Place) -> float:
        """When the prefill of a request must begin, at the throughput of prefill lately."""
        return place.due_s - self.token_s * place.num_tokens


class QoServe(DeadlineRival):
    """QoServe; ``anchor`` tells from when on TPOT counts, as in the paper if not."""

    BUDGET, ANCHOR = DynamicChunk, Anchor.LATER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.serve_in(HybridOrder(owed=OwedBatches(NO_AGEING)))
