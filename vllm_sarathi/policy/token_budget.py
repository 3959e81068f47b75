"""How many tokens the next batch may hold."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from math import inf, sqrt

from vllm_sarathi.policy.micro_batch import pipeline_cost_s
from vllm_sarathi.policy.step import BatchLimit, BatchSize, RequestView, StepView
from vllm_sarathi.policy.step_time import BATCH_SIZES, StepTimeModel, StepWork

AUTO_TBT_FACTOR = 5.0
"""A strict objective in decode-only steps (Sarathi-Serve, arXiv 2403.02310, section 5.1)."""

_WORTH = 1.002
"""How much slower a larger batch may be: less is more than a prediction can tell."""

_WAIT_WORTH = 0.005
"""What share of a batch's time it has to save that decodes sit out one more."""

_HOPE = 0.9
"""How much cheaper than predicted a batch size may be that was never tried."""

_FIRST_BATCH = 64
_GROWTH = 2


@dataclass(frozen=True, slots=True)
class FixedTokenBudget:
    """One number for every batch (Sarathi-Serve, arXiv 2403.02310, section 4.3).

    Attributes:
        num_tokens: tokens of a batch, decodes included.
    """

    num_tokens: int

    def __call__(self, view: StepView) -> BatchSize:
        """Return the number, whatever the view."""
        return BatchSize(self.num_tokens, BatchLimit.TOKEN_BUDGET)


@dataclass(frozen=True, slots=True)
class SloTokenBudget:
    """The batch size that gets prefill done soonest within the objective.

    On one stage that is the batch with most tokens per second, not the largest
    that fits: that one may lie just past a tile cliff. Where several batches fit
    between two tokens, the decodes sit out all but the last: reading their contexts
    each time would take time that prefill can use. Without decodes nobody waits, and
    the whole budget is used. A size that was never tried gets the benefit of the doubt,
    for its rate can only be guessed.

    Unlike the paper (Sarathi-Serve, arXiv 2403.02310, section 4.2), decodes so wait for
    prefill, though never beyond the objective.

    Over several micro-batches it follows the pipeline: ``micro_batch.pipeline_cost_s``.

    Attributes:
        model: predicts step times; the scheduler teaches it.
        tbt_s: objective for every gap between tokens, in seconds, infinite for
            none; None derives it from the predicted decode-only step.
        max_stall_s: longest gap where tokens came early, in seconds; None allows
            none beyond the objective.
        num_stages: pipeline stages. A request's gap spans a step of each.
        num_micro_batches: batches over which work is spread evenly.
        by_rate: prefer tokens per second to the largest batch; so do all micro-batches.
    """

    model: StepTimeModel
    tbt_s: float | None
    max_stall_s: float | None = None
    num_stages: int = 1
    num_micro_batches: int = 1
    by_rate: bool = True

    def objective_s(self, view: StepView) -> float:
        """Longest that a gap between two tokens of a request may be, in seconds."""
        if self.tbt_s is not None:
            most_s = self.tbt_s if self.max_stall_s is None else self.max_stall_s
            return min(self.tbt_s + view.outlook.slack_s, most_s)
        decodes = StepWork(view.num_decode_tokens, 0.0, view.decode_context_tokens)
        return AUTO_TBT_FACTOR * self.model.predict(decodes) * self.num_stages

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests."""
        anyone_decodes = bool(view.num_decodes or view.num_in_flight)
        if not anyone_decodes and self.num_micro_batches == 1:
            return BatchSize(view.max_num_scheduled_tokens, BatchLimit.MAXIMUM)
        limit_s = self._step_limit_s(view) if anyone_decodes else inf
        may_wait = limit_s < inf and self._may_wait(view)
        waited_s = view.outlook.waited_s / self.model.safety.value
        best = largest = StepWork(0)
        decodes_wait, least_s, limit = False, inf, BatchLimit.MAXIMUM
        for work in candidates(view, self._trusted(view)):
            predicted_s = self.model.predict(work)
            if waited_s + predicted_s > limit_s:
                limit = BatchLimit.OBJECTIVE
                break
            alone_s = self.model.predict(work._replace(decode_context=0)) if may_wait else 0.0
            turn = _turn(view, work, alone_s, predicted_s, limit_s)
            mean_s = predicted_s if turn == 1 else alone_s + (predicted_s - alone_s) / turn
            largest, cost_s = work, self._cost_s(view, work, mean_s, turn)
            if cost_s <= least_s * _WORTH:
                best = work
                decodes_wait = waited_s < (turn - 1.5) * alone_s
                decodes_wait = decodes_wait and waited_s + alone_s + predicted_s <= limit_s
            least_s = min(least_s, cost_s)
        if best is not largest:
            limit = BatchLimit.TILE if self.num_micro_batches == 1 else BatchLimit.MICRO_BATCH
        return BatchSize(best.num_tokens, limit, decodes_wait)

    def _step_limit_s(self, view: StepView) -> float:
        """What steps between two tokens may be predicted to take, in seconds."""
        return self.objective_s(view) / self.num_stages / self.model.safety.value

    def _may_wait(self, view: StepView) -> bool:
        """Whether decodes may sit batches out. A pipeline spreads them over its batches."""
        knows = self.by_rate and self.model.is_warm
        return knows and view.outlook.may_wait and self.num_stages == 1

    def _cost_s(self, view: StepView, work: StepWork, predicted_s: float, turn: int) -> float:
        """Time that it takes to work off all prefill in batches like this one.

        On one stage it is a token's share of that time, with the last, smaller batch:
        where that one takes nearly as long as the others, they are better even.
        """
        decodes, prefill = view.num_decode_tokens // turn, view.num_prefill_tokens
        if self.num_micro_batches > 1:
            bubbles_s = pipeline_cost_s(view, predicted_s, self.num_micro_batches)
            return (decodes + prefill) / work.num_tokens * predicted_s + bubbles_s
        if not self.by_rate:
            return 0.0
        chunk = work.num_tokens - decodes
        num_batches, rest = divmod(max(prefill, chunk), chunk)
        total_s = num_batches * predicted_s
        if rest:
            context = work.chunk_context * rest / chunk
            total_s += self.model.predict(StepWork(decodes + rest, context, work.decode_context))
        cost_s = total_s / (prefill + (num_batches + bool(rest)) * decodes)
        return cost_s if self.model.has_seen(work.num_tokens) else _HOPE * cost_s

    def _trusted(self, view: StepView) -> int:
        """Largest batch that the model may be asked about: some more than it has seen."""
        seen = max(_FIRST_BATCH, _GROWTH * self.model.largest_seen)
        return min(view.num_decode_tokens + seen, view.max_num_scheduled_tokens)


def _turn(
    view: StepView, work: StepWork, alone_s: float, with_decodes_s: float, limit_s: float
) -> int:
    """How many batches like this one the decodes take one of.

    As many as fit between two tokens and are filled by prefill, while one more is worth
    the wait: the n-th saves each of them about 1 / n^2 of what contexts take.

    Args:
        view: the requests.
        work: the batch, decodes included.
        alone_s: predicted time of a batch of its size without decodes; 0 if they
            may not wait.
        with_decodes_s: predicted time of this one.
        limit_s: what all of them may take.
    """
    if alone_s <= 0:
        return 1
    num_full = (view.num_decode_tokens + view.num_prefill_tokens) // work.num_tokens
    num_fitting = 1 + int((limit_s - with_decodes_s) / alone_s)
    num_worth = sqrt(max(with_decodes_s - alone_s, 0) / (_WAIT_WORTH * with_decodes_s))
    return max(1, min(num_full, num_fitting, int(num_worth)))


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
    """Prefill in the order of service; waiting prompts beyond the view look like those in it."""
    yield from view.prompts
    if view.num_unseen:
        yield from repeat(RequestView("unseen", view.mean_waiting_tokens), view.num_unseen)
