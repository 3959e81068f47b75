"""SlidingServe: SLO-aware sliding-window scheduling (arXiv 2606.05933).

Source: its abstract and a review; no code and not the text itself were found. Known are the
parts: chunks that are best over this step and the next one (found by ternary search; here all
sizes are tried), an order by protection, urgency and remaining work, and a knapsack that chooses
who runs where first tokens would be late. Not known, and so chosen here: from when on TPOT counts
(the first token), how wide a class of urgency is, how far the knapsack looks, and its values (as
many requests in time as possible). Unlike the paper, who is not chosen steps aside for good, and
decodes always run. Step times are those that our model learns, in place of the paper's
fit of seven features.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import Any
from weakref import WeakSet

from support.goodput_rivals import NO_AGEING
from support.rivals.delegation import Anchor, DeadlineRival

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.owed import OwedBatches
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.state import Rank
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.token_budget import candidates

URGENCY_S = 0.1
WINDOW = 16


@dataclass(frozen=True, slots=True)
class SlidingChunk:
    """The batch size after which this step and the next one hold most tokens together.

    Attributes:
        model: predicts step times.
    """

    model: StepTimeModel

    def __call__(self, view: StepView) -> BatchSize:
        """Choose the batch size for these requests."""
        works = list(candidates(view, view.max_num_scheduled_tokens))
        times_s = [self.model.predict(work) for work in works]
        chosen, most = 0, 0
        for work, step_s in zip(works, times_s, strict=True):
            if step_s > view.due.in_s:
                return BatchSize(chosen, BatchLimit.OBJECTIVE)
            left_s = view.due.in_s + view.due.pace_s - step_s
            fitting = bisect_right(times_s, left_s)
            following = works[fitting - 1].num_tokens if fitting else 0
            if work.num_tokens + following >= most:
                chosen, most = work.num_tokens, work.num_tokens + following
        return BatchSize(chosen, BatchLimit.MAXIMUM)


@dataclass(slots=True)
class SlidingOrder(WaitingOrder):
    """By protection, urgency and remaining work."""

    _left_out: WeakSet[Any] = field(default_factory=WeakSet)

    def rank(self, place: Place) -> Rank:
        """Where a request stands: lower is served first."""
        latest_s = self._latest_s(place)
        urgency = int(latest_s / URGENCY_S) if latest_s < inf else 0
        return place.priority, int(place.is_aside), urgency, place.num_tokens

    def steps_aside(self, place: Place, now_s: float) -> bool:
        """Whether a request is not protected."""
        late = WaitingOrder.steps_aside(self, place, now_s)
        return late or place.request in self._left_out

    def expire(self, now_s: float) -> list[Any]:
        """Let those step aside that cannot be in time, alone or with those before them."""
        late = WaitingOrder.expire(self, now_s)
        protected = (place for place in self if not (place.is_aside or place.has_begun))
        left_out = self._not_in_time(list(islice(protected, WINDOW)), now_s)
        for place in left_out:
            self._left_out.add(place.request)
            self.remove(place.request)
            self.add(replace(place, is_gone=False), now_s)
        return [*late, *(place.request for place in left_out)]

    def _not_in_time(self, places: list[Place], now_s: float) -> list[Place]:
        """Whom to leave out so that most of the others are in time (Moore and Hodgson)."""
        left_out, chosen = list[Place](), list[tuple[int, int, Place]]()
        end_s = now_s + self.step_s
        for place in sorted(places, key=lambda place: place.due_s):
            heappush(chosen, (-place.num_tokens, place.number, place))
            end_s += self.token_s * place.num_tokens
            if end_s > place.due_s:
                left_out.append(heappop(chosen)[-1])
                end_s -= self.token_s * left_out[-1].num_tokens
        return left_out


class SlidingServe(DeadlineRival):
    """SlidingServe, as far as it is known."""

    BUDGET, ANCHOR = SlidingChunk, Anchor.FIRST_TOKEN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.serve_in(SlidingOrder(owed=OwedBatches(NO_AGEING)))
