"""How many tokens the next batch may hold."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from math import inf, sqrt
from typing import NamedTuple

from vllm_sarathi.policy.micro_batch import pipeline_cost_s
from vllm_sarathi.policy.state import RequestView
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import BATCH_SIZES, StepTimeModel, StepWork

WANTED_FACTOR = 2.0
"""Decode-only steps that a gap may last at least, however soon a token is wanted: half of the time
is left for prefill. Where a decode-only step takes nearly the whole pace (agentic turns among
chats, A100, two seeds), the 99th percentile of the time to first token of the chats is 1.6 s; with
1.5 steps 3.9 s, with the pace of those that were late kept at any price 11 s. In overload the 99th
percentile of gaps is 57 to 79 ms with it, 90 to 250 ms where a broken promise leaves nothing but
the bound on stalls (five loads, 1.5 and 2 times capacity); goodput is equal."""

AUTO_TBT_FACTOR = 5.0
"""A strict objective in decode-only steps (Sarathi-Serve, arXiv 2403.02310, section 5.1)."""

_LEVEL_EXCESS = 0.002
"""How much dearer a larger batch may be and still win: less is more than a prediction can tell."""

_PAUSE_SAVING = 0.005
"""What share of a batch's time it has to save that decodes pause for one more."""

_UNTRIED_DISCOUNT = 0.1
"""How much cheaper than predicted a batch size may be that was never tried."""

_LEAST_GAP = 0.5
"""Share of the pace that a step has at least, though a decode is late: prefill goes on while
late decodes catch up at twice their pace."""

_FIRST_BATCH = 64
"""Prefill tokens that a batch may hold before any step was seen."""

_GROWTH = 2
"""How much larger than the largest batch seen the next one may be."""


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


class PricedBatch(NamedTuple):
    """A batch that the next one may be.

    Attributes:
        work: what is in it, decodes included.
        step_s: predicted time of it, in seconds.
        without_decodes_s: predicted time of one of its size that the decodes sit out;
            0 if they may not pause.
        num_batches: the decodes run in one of so many batches like it.
        cost: what is to be least; batches of one step are compared, nothing else.
    """

    work: StepWork
    step_s: float
    without_decodes_s: float
    num_batches: int
    cost: float


@dataclass(frozen=True, slots=True)
class SloTokenBudget:
    """The batch size that gets prefill done soonest within the objective.

    On one stage that is the batch with most tokens per second, not the largest
    that fits: that one may lie just past a tile cliff. Where several batches fit
    between two tokens, the decodes pause for all but the last: reading their contexts
    each time would take time that prefill can use. Where no decode has an objective,
    the whole budget is used.

    Unlike the paper (Sarathi-Serve, arXiv 2403.02310, section 4.2), decodes so wait for
    prefill, though never beyond the objective.

    Over several stages it follows the pipeline: ``micro_batch.pipeline_cost_s``.

    Attributes:
        model: predicts step times; the scheduler teaches it.
        num_stages: pipeline stages. A request's gap spans a step of each.
        balances: whether micro-batches of the stages share the work evenly.
        by_rate: prefer tokens per second to the largest batch; balanced ones do anyway.
    """

    model: StepTimeModel
    num_stages: int = 1
    balances: bool = False
    by_rate: bool = True

    def objective_s(self, view: StepView) -> float:
        """Longest that the gap which this step ends may be, in seconds; infinite for no bound.

        It ends in time for the earliest token that is due. A late one does not shrink it
        further than a share of the pace, for nothing is gained by batches of a few tokens.
        """
        due = view.due
        objective_s = max(view.outlook.paused_s + due.in_s, _LEAST_GAP * due.pace_s)
        if due.has_auto:
            objective_s = min(objective_s, AUTO_TBT_FACTOR * self._decode_only_s(view))
        return objective_s

    def _decode_only_s(self, view: StepView) -> float:
        decodes = StepWork(view.num_decode_tokens, 0.0, view.decode_context_tokens)
        return self.model.predict(decodes) * self.num_stages

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests."""
        anyone_decodes = bool(view.num_decodes or view.num_other_decodes)
        limit_s = self._step_limit_s(view) if anyone_decodes else inf
        if limit_s == inf and not self.balances:
            return BatchSize(view.max_num_scheduled_tokens, BatchLimit.MAXIMUM)
        paused_s = view.outlook.paused_s / self.model.safety.value
        in_time, limit = self._in_time(view, limit_s, paused_s)
        if not in_time:
            return BatchSize(0, limit)
        best = _cheapest(in_time)
        if best is not in_time[-1]:
            limit = BatchLimit.MICRO_BATCH if self.balances else BatchLimit.TILE
        return BatchSize(best.work.num_tokens, limit, _pauses(best, paused_s, limit_s))

    def _step_limit_s(self, view: StepView) -> float:
        """What steps between two tokens may be predicted to take, in seconds."""
        limit_s = self.objective_s(view)
        if view.due.wanted_in_s < inf:
            wanted_s = view.outlook.paused_s + view.due.wanted_in_s
            limit_s = min(limit_s, max(wanted_s, WANTED_FACTOR * self._decode_only_s(view)))
        return limit_s / self.num_stages / self.model.safety.value

    def _largest_trusted(self, view: StepView) -> int:
        """Largest batch that the model may be asked about: some more than it has seen."""
        seen = max(_FIRST_BATCH, _GROWTH * self.model.largest_seen)
        return min(view.num_decode_tokens + seen, view.max_num_scheduled_tokens)

    def _in_time(
        self, view: StepView, limit_s: float, paused_s: float
    ) -> tuple[list[PricedBatch], BatchLimit]:
        """Batches of growing size up to the first that would take too long, and what ends them."""
        may_pause = view.may_pause and limit_s < inf and self.model.is_warm
        in_time: list[PricedBatch] = []
        for work in candidates(view, self._largest_trusted(view)):
            step_s = self.model.predict(work)
            if paused_s + step_s > limit_s:
                return in_time, BatchLimit.OBJECTIVE
            alone_s = self.model.predict(work._replace(decode_context=0)) if may_pause else 0.0
            num_batches = _num_batches(view, work, alone_s, step_s, limit_s)
            mean_s = step_s if num_batches == 1 else alone_s + (step_s - alone_s) / num_batches
            cost = self._cost(view, work, mean_s, num_batches)
            in_time.append(PricedBatch(work, step_s, alone_s, num_batches, cost))
        return in_time, BatchLimit.MAXIMUM

    def _cost(self, view: StepView, work: StepWork, step_s: float, num_batches: int) -> float:
        """What is to be least: bubbles and all, or seconds a token, or the largest batch wins."""
        if self.balances:
            return self._pipeline_cost_s(view, work, step_s)
        if self.by_rate:
            return self._seconds_per_token(view, work, step_s, num_batches)
        return 1 / work.num_tokens

    def _pipeline_cost_s(self, view: StepView, work: StepWork, step_s: float) -> float:
        """Time that all prefill takes in micro-batches like this one, and their bubbles."""
        num_tokens = view.num_decode_tokens + view.num_prefill_tokens
        bubbles_s = pipeline_cost_s(view, step_s, self.num_stages)
        return num_tokens / work.num_tokens * step_s + bubbles_s

    def _seconds_per_token(
        self, view: StepView, work: StepWork, step_s: float, num_batches: int
    ) -> float:
        """A token's share of the time that all prefill takes in batches like this one.

        The last, smaller batch counts: where it takes nearly as long as the others, they
        are better even. A size that was never tried gets the benefit of the doubt, for
        its time can only be guessed.
        """
        decodes, prefill = view.num_decode_tokens // num_batches, view.num_prefill_tokens
        chunk = work.num_tokens - decodes
        num_full, rest = divmod(max(prefill, chunk), chunk)
        total_s = num_full * step_s
        if rest:
            context = work.chunk_context * rest / chunk
            total_s += self.model.predict(StepWork(decodes + rest, context, work.decode_context))
        cost = total_s / (prefill + (num_full + bool(rest)) * decodes)
        return cost if self.model.has_seen(work.num_tokens) else (1 - _UNTRIED_DISCOUNT) * cost


def _cheapest(batches: Iterable[PricedBatch]) -> PricedBatch:
    """The largest batch that costs hardly more than the cheapest smaller one."""
    least = inf
    for batch in batches:
        if batch.cost <= least * (1 + _LEVEL_EXCESS):
            best = batch
        least = min(least, batch.cost)
    return best


def _num_batches(
    view: StepView, work: StepWork, alone_s: float, step_s: float, limit_s: float
) -> int:
    """In one of how many batches like this one the decodes run.

    As many as fit between two tokens and are filled by prefill, while one more is worth
    the wait: the n-th saves each of them about 1 / n^2 of what contexts take.

    Args:
        view: the requests.
        work: the batch, decodes included.
        alone_s: predicted time of one that the decodes sit out; 0 if they may not.
        step_s: predicted time of this one.
        limit_s: what all of them may take.
    """
    if alone_s <= 0:
        return 1
    num_full = (view.num_decode_tokens + view.num_prefill_tokens) // work.num_tokens
    num_in_time = 1 + int((limit_s - step_s) / alone_s)
    num_worth = sqrt(max(step_s - alone_s, 0) / (_PAUSE_SAVING * step_s))
    return max(1, min(num_full, num_in_time, int(num_worth)))


def _pauses(batch: PricedBatch, paused_s: float, limit_s: float) -> bool:
    """Whether the decodes sit this one out: others like it still come before theirs is due."""
    alone_s = batch.without_decodes_s
    is_early = paused_s < (batch.num_batches - 1.5) * alone_s
    return is_early and paused_s + alone_s + batch.step_s <= limit_s


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
    backlog = view.backlog
    yield from repeat(RequestView("beyond view", backlog.mean_tokens), backlog.num_beyond_view)
