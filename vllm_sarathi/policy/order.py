"""The order of waiting requests: those in time first, and who steps aside.

A request that can no longer get its first token in time steps aside for those that can.
It is never rejected: it is served when nobody who is in time waits. And after each ``AGEING``
batches of prefill of others those that stepped aside are owed one, the first of them in their own
order: one that waits is admitted, one that runs gets on with its prefill. So every wait is bounded
however long the overload lasts: with k batches of prefill ahead of its own, a prompt has ended
after at most (k + 1) x ``AGEING`` batches of those that are in time, and one prompt more each time,
for it counts once it is taken. Requests of positive importance go before others of their kind:
before those that are in time, and before those that stepped aside.

A long context that does not fit the pace of the running requests would hold up short ones that do.
So it is bypassed: for one step all requests of its kind (priority, in time or aside, importance) go
first. Requests that bypass one that stepped aside count towards the batch that is owed, and never
take it. While one is owed, nobody is bypassed. So the bound holds, with one step more for each
prompt. A request in time can be bypassed only until it is late. There is no bound for one that vLLM
passes over, for an adapter or a grammar: the batch goes to the next.

Those that wait stand by the load and the prefix cache of when they came, but for those in time
whose prefix is being computed.

A prefix that several prompts share is computed once: one that runs and computes it is served no
later than those that wait for it. So these wait no longer than for their own prefix. The others may
wait for such a prefix besides, once for each prompt that runs.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import count
from math import inf
from typing import Any, NamedTuple

from vllm_sarathi.policy.owed import OwedBatches
from vllm_sarathi.policy.place import Entry, Place, PlaceHeap, Places
from vllm_sarathi.policy.state import Rank

PREFILL_WEIGHTS = {"edf": 0.0, "hybrid": 8.0, "prefix": 8.0, "srpf": 100.0, "mlfq": 100.0}
"""How many times its own prefill time a request is postponed (Niyama, section 3.2): not at all is
the order of deadlines, many times that of the shortest remaining prefill, though nobody waits
for ever. The hybrid keeps long prompts soonest. "prefix" has its weight, for those with a
deadline, and "mlfq" that of the shortest, in levels."""

FULL_OVERLOAD = 0.1
"""Share of requests of the same importance stepping aside from which lengths count in full. Below
it they count in proportion, so that deadlines alone rule while all can be met (A100 at 3.2
requests/s: goodput 0.981, 0.971 with the full weight at any load; at 3.8: 0.925, 0.919 in full,
0.904 without)."""

IN_OVERLOAD = 2.5
"""How much more lengths count in full overload among those that can be in time: 20 times in the
hybrid. Measured with that at 1.5 times capacity, three or four seeds: goodput of conversations
with Mixtral-8x7B, where short prompts leave KV blocks for more requests, 0.752 (0.710 with 1);
with Llama-3-8B on an A100 0.765 (0.762), ShareGPT-like 0.816 (0.821); beside prompts of 100,000
tokens 0.712 (0.698)."""

_REQUEST_WEIGHT = 1 / 50
"""Weight of the last request in the share of those that step aside, and in mean prefill."""

_TOKEN_S = 1e-4
"""Seconds of prefill for a token before any was seen: those of an 8B model on an A100."""


class _Taken(NamedTuple):
    """A place that was taken in this step, and what to give back if it is put back."""

    place: Place
    num_counted: int
    was_granted: bool


@dataclass(slots=True)
class WaitingOrder:
    """Waiting requests in the order of service. O(log n) a change.

    Attributes:
        prefill_weight: how many times its own prefill time a request is postponed; in full
            overload, those in time ``IN_OVERLOAD`` times that.
        token_s: predicted seconds of prefill for each token, as load has it.
        step_s: predicted seconds of a full step.
        num_ahead: full steps that a prefill waits for if it is not taken now: the next one, and
            under async scheduling the one that runs while that is planned.
        share_aside: for each importance, how many of its last requests stepped aside, from 0
            to 1: the less important may be in overload while the others are not.
        mean_prefill: prefill tokens of a request, on average of the last that came; 0 for each that
            was late or has no deadline.
        owed: batches that those that stepped aside are owed.
    """

    prefill_weight: float = PREFILL_WEIGHTS["hybrid"]
    token_s: float = _TOKEN_S
    step_s: float = 0.0
    num_ahead: int = 1
    share_aside: dict[int, float] = field(default_factory=dict)
    mean_prefill: float = 0.0
    owed: OwedBatches = field(default_factory=OwedBatches)
    _taken: dict[Any, _Taken] = field(default_factory=dict)
    _bypassed: set[Any] = field(default_factory=set)
    _lent: dict[Any, dict[Any, Rank]] = field(default_factory=dict)
    _places: dict[Any, Place] = field(default_factory=dict)
    _in_time: PlaceHeap = field(default_factory=lambda: PlaceHeap(is_aside=False))
    _expiring: PlaceHeap = field(default_factory=lambda: PlaceHeap(is_aside=False))
    _aside: Places = field(default_factory=lambda: PlaceHeap(is_aside=True))
    _numbers: Iterator[int] = field(default_factory=count)
    _num_aside: int = 0
    _tokens_in_time: int = 0

    def rank(self, place: Place) -> Rank:
        """Where a request stands: lower is served first."""
        rank = self._own_rank(place)
        if place.request in self._bypassed:
            return (*rank[:3], inf)
        return min((rank, *self._lent.get(place.request, {}).values()))

    def _own_rank(self, place: Place) -> Rank:
        if place.has_begun:
            return place.priority, -1, 0, place.arrival_s
        if place.is_aside:
            if self.owed.is_at_its_batch(place):
                return self.owed_rank(place)
            return place.priority, 1, -max(place.importance, 0), self._aside_s(place)
        overload = min(self.share_aside.get(place.importance, 0.0) / FULL_OVERLOAD, 1.0)
        postponed_s = IN_OVERLOAD * overload * self._postponed_s(place)
        return place.priority, 0, -place.importance, place.due_s + postponed_s

    def _aside_s(self, place: Place) -> float:
        """The order of those aside: by time, so that ageing bounds every wait."""
        return place.arrival_s + self._postponed_s(place)

    def _postponed_s(self, place: Place) -> float:
        """How long a request is put back for the sake of shorter ones."""
        return self.prefill_weight * self.token_s * place.num_tokens

    def owed_rank(self, place: Place) -> Rank:
        """Where one that stepped aside stands while it is owed a batch."""
        return place.priority, 0, -max(place.importance, 0), place.arrival_s

    def steps_aside(self, place: Place, now_s: float) -> bool:
        """Whether a request cannot be in time any more, or has no time to keep."""
        if place.has_begun or place.is_aside:
            return place.is_aside
        return place.due_s == inf or self._latest_s(place) < now_s

    def add(self, place: Place, now_s: float) -> None:
        """Let a request wait."""
        place.number = next(self._numbers)
        self._wait(place, now_s)
        if not place.has_begun:
            num_tokens = 0 if place.is_aside else place.num_tokens
            self.mean_prefill += _REQUEST_WEIGHT * (num_tokens - self.mean_prefill)

    def expire(self, now_s: float) -> list[Any]:
        """Let those step aside that can no longer be in time, as each step begins.

        Those taken in the step before can no longer be put back.

        Returns:
            Their requests.
        """
        if any(taken.was_granted for taken in self._taken.values()):
            self.owed.blocked.clear()
        self._taken.clear()
        self._lent.clear()
        bypassed = [*self._bypassed]
        self._bypassed.clear()
        self._rank_again(bypassed)
        late = []
        while (entry := self._expiring.first()) and entry[0] < now_s:
            late.append(self._step_aside(entry[-1]))
        # Steps may take longer than when they came: whoever is first is asked again. No more than
        # one, so that a single long step does not put all aside.
        if (entry := self._in_time.first()) and self.steps_aside(entry[-1], now_s):
            late.append(self._step_aside(entry[-1]))
        self._drop_stale()
        return late

    def _step_aside(self, place: Place) -> Any:
        place.is_aside = True
        self._num_aside += 1
        self._tokens_in_time -= place.num_tokens
        self._aside.push(self.rank(place), place)
        share = self.share_aside.get(place.importance, 0.0)
        self.share_aside[place.importance] = share + _REQUEST_WEIGHT * (1 - share)
        return place.request

    def first(self) -> Place | None:
        """Who is served next."""
        in_time, aside = self._in_time.first(), self._first_aside()
        if in_time is None or aside is None:
            found = in_time or aside
            return found[-1] if found else None
        aside_rank = self.owed_rank(aside[-1]) if self._grants else aside[0]
        return (aside if aside_rank < in_time[0] else in_time)[-1]

    def pop(self) -> Place:
        """Take who is served next.

        Raises:
            IndexError: nobody waits.
        """
        place = self.first()
        if place is None:
            raise IndexError("no request waits")
        self._take(place)
        return place

    def _take(self, place: Place) -> None:
        num_before = self.owed.num_tokens
        is_owed = place.is_aside and self._grants
        if is_owed:
            self.owed.grant(place)
        if not place.is_aside or self._bypasses_aside:
            self.owed.count(place)
        if not place.is_aside and place.importance in self.share_aside:
            self.share_aside[place.importance] *= 1 - _REQUEST_WEIGHT
        self.remove(place.request)
        self._taken[place.request] = _Taken(place, self.owed.num_tokens - num_before, is_owed)

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until all that wait and are in time are prefilled."""
        return self.step_s + self.token_s * self._tokens_in_time

    def took(self, request: Any) -> bool:
        """Whether a request was taken in this step, and may be put back."""
        return request in self._taken

    def put_back(self, request: Any) -> None:
        """Let one that was taken wait again at its place: it was not admitted after all.

        Raises:
            KeyError: it was not taken in this step.
        """
        place, num_counted, was_granted = self._taken.pop(request)
        self.owed.uncount(num_counted)
        if not place.is_aside and place.importance in self.share_aside:
            self.share_aside[place.importance] /= 1 - _REQUEST_WEIGHT
        # Whether it is late now is asked as the next step begins, for ``expire`` to tell.
        self._wait(replace(place, is_gone=False), -inf)
        if was_granted:
            self.owed.block(place.request)

    @property
    def num_aside(self) -> int:
        """How many of those that wait stepped aside, or have no time to keep."""
        return self._num_aside

    @property
    def _grants(self) -> bool:
        """Whether the first of those that stepped aside gets the owed batch.

        Not while one that came before it is bypassed.
        """
        return self.owed.is_due and not self._bypasses_aside

    @property
    def _bypasses_aside(self) -> bool:
        return any(self._places[request].is_aside for request in self._bypassed)

    @property
    def owes_one_waiting(self) -> bool:
        """Whether one that stepped aside and waits is owed a batch."""
        return self.owed.is_due and self._num_aside > 0

    def owes(self, request: Any) -> bool:
        """Whether a waiting request is the one that is owed a batch."""
        first = self.first() if self._grants else None
        return first is not None and first.is_aside and bool(first.request == request)

    def pays(self, place: Place) -> bool:
        """Whether one that stepped aside and runs gets the batch that is owed; it is paid then.

        It does, unless another that waits comes before it. One that waits for what it computes
        does so only if it is more important.
        """
        if not (place.is_aside and self.owed.is_due):
            return False
        first = self._first_aside()
        if first and first[0] < self._own_rank(place):
            waiting, lenders = first[-1], self._lent.get(place.request, {})
            if waiting.request not in lenders:
                return False
            if self.owed_rank(waiting)[:3] < self.owed_rank(place)[:3]:
                return False  # it could not use the batch: others of its kind come before it
        self.owed.grant(place)
        return True

    def bypass(self, requests: Collection[Any], by: Any) -> None:
        """Serve requests last of their kind until the next step begins, so that one comes first.

        Does nothing if one of them is not of its kind or has begun, or while a batch is owed to
        one that waits.

        Args:
            requests: those before it.
            by: that one.
        """
        if self.owes_one_waiting:
            return
        rank = self.rank(self._places[by])
        places = [self._places[request] for request in requests]
        if any(self.rank(place)[:3] != rank[:3] or place.has_begun for place in places):
            return
        self._bypassed.update(requests)
        self._rank_again(requests)

    def lend_rank(self, waiting: Any, num_tokens: int, running: Any) -> None:
        """Serve a running request no later than a waiting one whose prefix it computes.

        Until the next step begins. Priority inheritance: otherwise the one that waits would compute
        the prefix again, or wait for all that come before the other.

        Args:
            waiting: who waits.
            num_tokens: prefill tokens that it has left now.
            running: who computes its prefix.
        """
        place = self._places[waiting]
        left = replace(place, num_tokens=num_tokens)
        if not place.is_aside and num_tokens != place.num_tokens:  # it is late later than it was
            self._tokens_in_time += num_tokens - place.num_tokens
            place.num_tokens = num_tokens
            self._rank_again([waiting])
        self._lent.setdefault(running, {})[waiting] = self.rank(left)

    def is_aside(self, request: Any) -> bool:
        """Whether a waiting request stepped aside."""
        return self._places[request].is_aside

    def remove(self, request: Any) -> None:
        """Let a request go.

        Raises:
            KeyError: it does not wait.
        """
        place = self._places.pop(request)
        place.is_gone = True
        self.owed.blocked.discard(place.request)
        self._bypassed.discard(place.request)
        self._count(place, -1)
        self._drop_stale()

    def __contains__(self, request: Any) -> bool:
        return request in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        """Requests in order. The first few cost little, however many wait."""
        first = self.first()
        if first is None:
            return
        yield first
        yield from (
            entry[-1] for entry in merge(self._in_time, self._aside) if entry[-1] is not first
        )

    def _wait(self, place: Place, now_s: float) -> None:
        self._lent.pop(place.request, None)  # it may have run in this step
        if place.request in self._places:  # vLLM may add a session that already waits
            self.remove(place.request)
        self._places[place.request] = place
        place.is_aside = self.steps_aside(place, now_s)
        self.owed.begin_anew(place.request)
        self._count(place, 1)
        self._push(place)
        self._drop_stale()

    def _push(self, place: Place) -> None:
        (self._aside if place.is_aside else self._in_time).push(self.rank(place), place)
        if not (place.is_aside or place.has_begun):
            self._expiring.push(self._latest_s(place), place)

    def _rank_again(self, requests: Iterable[Any]) -> None:
        for request in requests:
            place = self._places[request]
            place.is_gone = True  # its entries have the old rank
            self._places[request] = replace(place, is_gone=False)
            self._push(self._places[request])

    def _latest_s(self, place: Place) -> float:
        """When a request must be taken at the latest. Its own prefill takes a step at least."""
        own_s = max(self.token_s * place.num_tokens, self.step_s)
        return place.due_s - self.num_ahead * self.step_s - own_s

    def _first_aside(self) -> Entry | None:
        """The first of those that stepped aside; if a batch is owed, of those that can take it."""
        return self.owed.first(self._aside) if self._grants else self._aside.first()

    def _count(self, place: Place, sign: int) -> None:
        if place.is_aside:
            self._num_aside += sign
        else:
            self._tokens_in_time += sign * place.num_tokens

    def _drop_stale(self) -> None:
        num_in_time = len(self._places) - self._num_aside
        self._in_time.shrink(num_in_time)
        self._expiring.shrink(num_in_time)
        self._aside.shrink(self._num_aside)
