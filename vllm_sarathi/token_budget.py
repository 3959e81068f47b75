"""How many tokens the next batch may hold."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from vllm_sarathi.step import BatchLimit, RequestView, StepView
from vllm_sarathi.step_time import BATCH_SIZES, StepTimeModel, StepWork

AUTO_TBT_FACTOR = 5.0
"""A strict objective in decode-only steps (Sarathi-Serve, arXiv 2403.02310, section 5.1)."""

_FIRST_BATCH = 64
_GROWTH = 2
_TINY_S = 1e-9


@dataclass(frozen=True, slots=True)
class FixedTokenBudget:
    """One number for every batch (Sarathi-Serve, arXiv 2403.02310, section 4.3).

    Attributes:
        num_tokens: tokens of a batch, decodes included.
    """

    num_tokens: int

    def __call__(self, view: StepView) -> tuple[int, BatchLimit]:
        """Return the number, whatever the view."""
        return self.num_tokens, BatchLimit.TOKEN_BUDGET


@dataclass(frozen=True, slots=True)
class SloTokenBudget:
    """The batch that does the most work per second within the objective.

    Not the largest that fits: that one may lie just past a tile cliff. Without
    decodes nobody waits, and the whole budget is used.

    Attributes:
        model: predicts step times; the scheduler teaches it.
        tbt_s: objective for every gap between tokens, in seconds; None derives
            it from the predicted decode-only step.
        num_stages: pipeline stages. A request's gap spans a step of each.
        by_rate: choose the batch with most tokens per second; else the largest.
    """

    model: StepTimeModel
    tbt_s: float | None
    num_stages: int = 1
    by_rate: bool = True

    def objective_s(self, view: StepView) -> float:
        """Longest that a gap between two tokens of a request may be, in seconds."""
        if self.tbt_s is not None:
            return self.tbt_s
        decodes = StepWork(view.num_decode_tokens, 0.0, view.decode_context_tokens)
        return AUTO_TBT_FACTOR * self.model.predict(decodes) * self.num_stages

    def __call__(self, view: StepView) -> tuple[int, BatchLimit]:
        """Choose the batch size for these requests."""
        if not view.num_decodes:
            return view.max_num_scheduled_tokens, BatchLimit.MAXIMUM
        limit_s = self.objective_s(view) / self.num_stages / self.model.safety.value
        best = largest = StepWork(0)
        best_rate, limit = 0.0, BatchLimit.MAXIMUM
        for work in candidates(view, self._trusted(view)):
            predicted_s = self.model.predict(work)
            if predicted_s > limit_s:
                limit = BatchLimit.OBJECTIVE
                break
            largest, rate = work, work.num_tokens / max(predicted_s, _TINY_S)
            if rate >= best_rate or not self.by_rate:
                best, best_rate = work, rate
        return best.num_tokens, limit if best is largest else BatchLimit.TILE

    def _trusted(self, view: StepView) -> int:
        """Largest batch that the model may be asked about: some more than it has seen."""
        seen = max(_FIRST_BATCH, _GROWTH * self.model.largest_seen)
        return min(view.num_decode_tokens + seen, view.max_num_scheduled_tokens)


def candidates(view: StepView, most: int) -> Iterator[StepWork]:
    """Batches of growing size that hold all decodes and some prefill.

    Args:
        view: the requests.
        most: tokens that no candidate exceeds.

    Yields:
        One batch for each of ``BATCH_SIZES`` until all prefill fits or ``most`` is
        reached, and that last one.
    """
    decodes, chunk_context, total = view.num_decode_tokens, 0.0, view.num_decode_tokens
    sizes = BATCH_SIZES[bisect_right(BATCH_SIZES, decodes) : bisect_right(BATCH_SIZES, most - 1)]
    prompts = _prompts(view)
    prompt, done = next(prompts, None), 0
    for size in (*sizes, most):
        while prompt is not None and total < size:
            chunk = min(size - total, prompt.num_tokens - done)
            chunk_context += chunk * (prompt.num_computed_tokens + done + chunk / 2)
            total, done = total + chunk, done + chunk
            if done == prompt.num_tokens:
                prompt, done = next(prompts, None), 0
        if total > decodes:
            yield StepWork(total, chunk_context, view.decode_context_tokens)
        if total < size:
            return


def _prompts(view: StepView) -> Iterator[RequestView]:
    """Prefill in the order of service; waiting prompts beyond the view look like its last."""
    waiting = view.waiting[: view.max_new_prefills]
    yield from view.prefills
    yield from waiting
    if waiting:
        unseen = min(view.num_waiting, view.max_new_prefills) - len(waiting)
        yield from repeat(waiting[-1], max(unseen, 0))
