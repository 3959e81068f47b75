"""The order of waiting requests, against a plain sorted one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.policy.order import FULL_OVERLOAD, IN_OVERLOAD, WaitingOrder
from vllm_sarathi.policy.owed import AGEING, OwedBatches
from vllm_sarathi.policy.place import Place

TOKEN_S = 0.01
BATCH_TOKENS = 16
STEP_S = 0.2


class Name(str):
    """A request: a string that weak references may point to."""

    __hash__ = str.__hash__


def place(name: str = "r", due_s: float = 10.0, num_tokens: int = 10, **fields: Any) -> Place:
    return Place(Name(name), fields.pop("arrival_s", 0.0), due_s, num_tokens, **fields)


def order(*places: Place, now_s: float = 0.0, ageing: int = AGEING, **fields: Any) -> WaitingOrder:
    """An order where a batch holds as many tokens as the smallest admission counts."""
    made = WaitingOrder(
        **{"prefill_weight": 8.0, "token_s": TOKEN_S, **fields},
        owed=OwedBatches(ageing, BATCH_TOKENS),
    )
    for one in places:
        made.add(one, now_s)
    return made


def names(waiting: WaitingOrder) -> list[str]:
    return [one.request for one in waiting]


def served(waiting: WaitingOrder) -> list[str]:
    return [waiting.pop().request for _ in range(len(waiting))]


@dataclass
class Entry:
    """A waiting request of the reference, with its rank when it last changed."""

    place: Place
    number: int
    rank: tuple[float, ...] = ()
    is_aside: bool = False

    @property
    def begin_s(self) -> float:
        return self.place.due_s - 2 * STEP_S - max(TOKEN_S * self.place.num_tokens, STEP_S)


@dataclass
class Sorted:
    """The reference: a list, searched and sorted each time."""

    ageing: int
    share: dict[int, float] = field(default_factory=dict)
    waits: list[Entry] = field(default_factory=list)
    taken: dict[str, tuple[Entry, int, bool]] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    bypassed: set[str] = field(default_factory=set)
    tokens_since: int = 0
    number: int = 0

    @property
    def bypasses_aside(self) -> bool:
        return any(e.is_aside for e in self.waits if e.place.request in self.bypassed)

    @property
    def is_owed(self) -> bool:
        return self.tokens_since >= self.ageing * BATCH_TOKENS and not self.bypasses_aside

    def bypass(self, num: int) -> tuple[list[str], str]:
        """Let one of the list bypass so many before it, as the rules allow."""
        *before, by = self.sorted()[: num + 1]
        is_due = self.tokens_since >= self.ageing * BATCH_TOKENS
        are_alike = all(e.rank[:3] == by.rank[:3] and e.rank[1] >= 0 for e in before)
        requests = [str(e.place.request) for e in before]
        if are_alike and not (is_due and any(e.is_aside for e in self.waits)):
            self.bypassed.update(requests)
        return requests, str(by.place.request)

    def add(self, one: Place, now_s: float, back: Entry | None = None) -> None:
        self.number += 1
        entry = Entry(one, back.number if back else self.number)
        was_aside = back is not None and back.is_aside
        entry.is_aside = not one.has_begun and (
            was_aside or one.due_s == inf or entry.begin_s < now_s
        )
        self._rank(entry)
        self.waits.append(entry)

    def _rank(self, entry: Entry) -> None:
        one = entry.place
        late_s = 8.0 * TOKEN_S * one.num_tokens
        if one.has_begun:
            entry.rank = (one.priority, -1, 0, one.arrival_s)
        elif entry.is_aside:
            entry.rank = (one.priority, 1, -max(one.importance, 0), one.arrival_s + late_s)
        else:
            weight = IN_OVERLOAD * min(self.share.get(one.importance, 0.0) / FULL_OVERLOAD, 1.0)
            entry.rank = (one.priority, 0, -one.importance, one.due_s + weight * late_s)

    def expire(self, now_s: float) -> set[str]:
        if any(was_owed for *_, was_owed in self.taken.values()):
            self.blocked.clear()
        self.taken.clear()
        self.bypassed.clear()
        begun = {e.place.request for e in self.waits if e.rank[1] == -1}
        late = [
            e
            for e in sorted(self.waits, key=lambda e: (e.begin_s, e.number))
            if not e.is_aside and e.place.request not in begun and e.begin_s < now_s
        ]
        for entry in late:
            entry.is_aside = True
            self._rank(entry)
            share = self.share.get(entry.place.importance, 0.0)
            self.share[entry.place.importance] = share + (1 - share) / 50
        return {e.place.request for e in late}

    def sorted(self) -> list[Entry]:
        def key(e: Entry) -> tuple[tuple[float, ...], int]:
            is_last = e.place.request in self.bypassed
            return ((*e.rank[:3], inf) if is_last else e.rank), e.number

        by_rank = sorted(self.waits, key=key)
        aside = [e for e in by_rank if e.is_aside]
        in_time = [e for e in by_rank if not e.is_aside]
        if self.is_owed and aside:
            free = [e for e in aside if e.place.request not in self.blocked]
            owed = (free or aside)[0]
            one = owed.place
            owed_rank = (one.priority, 0, -max(one.importance, 0), one.arrival_s)
            if not in_time or owed_rank < key(in_time[0])[0]:
                by_rank.remove(owed)
                by_rank.insert(0, owed)
        return by_rank

    def pop(self) -> str:
        entry = self.sorted()[0]
        before, was_owed = self.tokens_since, entry.is_aside and self.is_owed
        if not entry.is_aside or self.bypasses_aside:
            self.tokens_since += max(entry.place.num_tokens, 16)
        elif was_owed:
            self.tokens_since = 0
        self.waits.remove(entry)
        self.bypassed.discard(str(entry.place.request))
        if not entry.is_aside and entry.place.importance in self.share:
            self.share[entry.place.importance] *= 1 - 1 / 50
        self.taken[entry.place.request] = entry, self.tokens_since - before, was_owed
        return str(entry.place.request)

    def put_back(self, name: str) -> None:
        entry, counted, was_owed = self.taken.pop(name)
        self.tokens_since = max(self.tokens_since - counted, 0)
        if not entry.is_aside and entry.place.importance in self.share:
            self.share[entry.place.importance] /= 1 - 1 / 50
        self.add(entry.place, -inf, back=entry)
        if was_owed:
            self.blocked.add(name)


made = st.builds(
    lambda wait_s, due, tokens, importance, priority, begun: (
        lambda name, now_s: Place(
            Name(name),
            now_s - wait_s,
            now_s - wait_s + due,
            tokens,
            importance=importance,
            priority=priority,
            has_begun=begun,
        )
    ),
    st.integers(0, 3),
    st.sampled_from([1, 2, 5, inf]),
    st.integers(1, 300),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([False] * 7 + [True]),
)
acts = st.one_of(
    st.tuples(st.just("add"), made),
    st.tuples(st.just("add"), made),
    st.tuples(st.just("pop"), st.just(None)),
    st.tuples(st.just("remove"), st.integers(0, 99)),
    st.tuples(st.just("put back"), st.integers(0, 99)),
    st.tuples(st.just("step"), st.sampled_from([0.0, 0.3, 1.0, 4.0])),
    st.tuples(st.just("bypass"), st.integers(1, 4)),
)


@given(st.lists(acts, max_size=80), st.integers(1, 3))
def test_it_serves_as_a_sorted_list_would_whatever_comes_and_goes(
    done: list[tuple[str, Any]], ageing: int
) -> None:
    ours, plain, now_s = order(ageing=ageing, step_s=STEP_S, num_ahead=2), Sorted(ageing), 100.0
    for i, (act, what) in enumerate(done):
        if act == "add":
            ours.add(what(f"r{i}", now_s), now_s)
            plain.add(what(f"r{i}", now_s), now_s)
        elif act == "step":
            now_s += what
            assert set(ours.expire(now_s)) == plain.expire(now_s)
        elif act == "pop" and plain.waits:
            assert ours.pop().request == plain.pop()
        elif act == "remove" and plain.waits:
            entry = plain.waits.pop(what % len(plain.waits))
            plain.blocked.discard(entry.place.request)
            plain.bypassed.discard(entry.place.request)
            ours.remove(entry.place.request)
        elif act == "bypass" and len(plain.waits) > 1:
            ours.bypass(*plain.bypass(what))
        elif act == "put back" and plain.taken:
            name = list(plain.taken)[what % len(plain.taken)]
            assert ours.took(name)
            ours.put_back(name)
            plain.put_back(name)
        expected = plain.sorted()
        assert names(ours) == [e.place.request for e in expected]
        assert len(ours) == len(expected)
        assert [ours.is_aside(e.place.request) for e in expected] == [e.is_aside for e in expected]
        assert ours.share_aside == pytest.approx(plain.share)
    assert served(ours) == [plain.pop() for _ in range(len(plain.waits))]


def test_who_cannot_be_in_time_any_more_steps_aside_for_those_that_can() -> None:
    waiting = order(place("early", due_s=5.0), place("later", due_s=50.0))
    assert names(waiting) == ["early", "later"]
    assert waiting.expire(5.0) == ["early"]
    assert names(waiting) == ["later", "early"]


def test_a_prompt_is_late_as_soon_as_its_prefill_no_longer_fits() -> None:
    waiting = order(place("long", due_s=5.0, num_tokens=200))
    assert waiting.expire(2.99) == []
    assert waiting.expire(3.01) == ["long"]


def test_the_first_steps_aside_as_soon_as_steps_take_too_long_for_it() -> None:
    waiting = order(place("first", due_s=5.0), place("next", due_s=6.0), place("last", due_s=9.0))
    waiting.step_s = 2.0
    assert waiting.expire(1.5) == ["first"]
    assert names(waiting) == ["next", "last", "first"]
    assert waiting.expire(2.5) == ["next"]


def test_a_long_step_puts_no_more_than_the_first_aside_at_once() -> None:
    waiting = order(*(place(f"r{i}", due_s=5.0) for i in range(9)))
    waiting.step_s = 9.0
    assert waiting.expire(0.0) == ["r0"]
    waiting.step_s = 0.0
    assert waiting.expire(0.1) == []


def test_mean_prefill_counts_each_that_comes_and_those_that_are_late_as_none() -> None:
    waiting = order(place("a", num_tokens=50))
    assert waiting.mean_prefill == pytest.approx(1.0)
    waiting.put_back(waiting.pop().request)
    waiting.add(place("preempted", num_tokens=50, has_begun=True), 0.0)
    assert waiting.mean_prefill == pytest.approx(1.0)
    waiting.add(place("late", due_s=-1.0, num_tokens=50), 0.0)
    assert waiting.mean_prefill == pytest.approx(0.98)


def test_who_stepped_aside_is_named_once() -> None:
    waiting = order(place("r", due_s=5.0))
    assert waiting.expire(9.0) == ["r"]
    assert waiting.expire(99.0) == []


def test_who_stepped_aside_never_comes_back_among_those_in_time() -> None:
    waiting = order(place("late", due_s=3.0, num_tokens=200), place("next", due_s=2.5))
    waiting.expire(1.5)
    waiting.token_s = TOKEN_S / 100  # the machine turns out to be faster
    waiting.expire(1.6)
    assert waiting.is_aside("late")
    assert names(waiting) == ["next", "late"]
    for _ in range(2):
        waiting.pop()
    waiting.put_back("late")
    assert waiting.is_aside("late")


def test_the_backlog_is_the_prefill_of_those_in_time_after_the_step_that_runs() -> None:
    waiting = order(place("a", num_tokens=30), place("late", due_s=-1.0), step_s=0.2)
    waiting.add(place("b", num_tokens=20), 0.0)
    waiting.add(place("never due", due_s=inf), 0.0)
    assert waiting.backlog_s == pytest.approx(0.2 + 50 * TOKEN_S)
    waiting.pop()
    assert waiting.backlog_s < 0.2 + 50 * TOKEN_S


@pytest.mark.parametrize(("num_ahead", "latest_s"), [(1, 9.0), (2, 8.5)])
def test_one_is_late_once_the_steps_ahead_and_a_step_of_its_own_do_not_fit(
    num_ahead: int, latest_s: float
) -> None:
    waiting = order(place("r", due_s=10.0, num_tokens=1), step_s=0.5, num_ahead=num_ahead)
    waiting.expire(latest_s - 1e-6)
    assert not waiting.is_aside("r")
    waiting.expire(latest_s + 1e-6)
    assert waiting.is_aside("r")


def test_one_without_a_deadline_lets_all_with_one_go_first() -> None:
    waiting = order(place("batch", due_s=inf), place("chat", due_s=9.0, arrival_s=8.0))
    assert served(waiting) == ["chat", "batch"]


def test_one_whose_tokens_are_out_goes_first() -> None:
    waiting = order(place("a", importance=5), place("b", due_s=inf, has_begun=True))
    assert served(waiting) == ["b", "a"]
    assert order(place("b", has_begun=True)).expire(99.0) == []


def test_the_more_important_go_first_of_those_in_time() -> None:
    waiting = order(place("a", due_s=5.0), place("b", due_s=9.0, importance=1))
    assert served(waiting) == ["b", "a"]


@pytest.mark.parametrize(("importance", "first"), [(9, "b"), (0, "a"), (-9, "a")])
def test_of_those_that_stepped_aside_important_ones_come_first_and_time_orders_the_rest(
    importance: int, first: str
) -> None:
    late = place("b", due_s=1.0, arrival_s=0.5, importance=importance)
    waiting = order(place("a", due_s=1.0, arrival_s=0.0), late)
    waiting.expire(5.0)
    assert served(waiting)[0] == first


def test_overload_of_the_less_important_postpones_no_long_prompt_of_the_others() -> None:
    waiting = order(place("late", due_s=1.0), share_aside={0: FULL_OVERLOAD})
    for importance in (0, 9):
        waiting.add(place(f"long {importance}", 50.0, 900, importance=importance), 0.0)
        waiting.add(place(f"short {importance}", 51.0, 1, importance=importance), 0.0)
    waiting.expire(5.0)
    assert served(waiting) == ["long 9", "short 9", "short 0", "long 0", "late"]


@pytest.mark.parametrize("is_late", [False, True])
def test_vllms_priority_goes_before_all_else(is_late: bool) -> None:
    first = place("first", due_s=-1.0 if is_late else 90.0, num_tokens=900, priority=0)
    waiting = order(first, place("second", priority=1, importance=9, has_begun=True))
    assert names(waiting) == served(waiting) == ["first", "second"]


def test_a_turn_for_those_aside_does_not_break_priorities() -> None:
    waiting = order(place("aside", due_s=-1.0, priority=1), ageing=1)
    for i in range(5):
        waiting.add(place(f"r{i}"), 0.0)
    assert served(waiting)[-1] == "aside"


@pytest.mark.parametrize(
    ("weight", "expected"), [(0.0, ["long", "short"]), (8.0, ["short", "long"])]
)
def test_in_overload_the_shortest_goes_first_as_its_weight_says(
    weight: float, expected: list[str]
) -> None:
    waiting = order(prefill_weight=weight, share_aside={0: FULL_OVERLOAD})
    waiting.add(place("long", due_s=60.0, num_tokens=1000), 0.0)
    waiting.add(place("short", due_s=61.0), 0.0)
    assert served(waiting) == expected


def test_deadlines_alone_rule_while_all_are_in_time() -> None:
    waiting = order(place("long", due_s=60.0, num_tokens=1000), place("short", due_s=61.0))
    assert served(waiting) == ["long", "short"]


arriving = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200)


@given(arriving, st.integers(1, 5), st.integers(0, 6), st.lists(st.booleans(), max_size=200))
def test_the_wait_of_those_aside_is_bounded_by_what_is_in_time_and_no_more_important(
    more: list[tuple[int, bool]], ageing: int, num_ahead: int, blocked: list[bool]
) -> None:
    waiting = order(*(place(f"ahead{i}", due_s=-1.0) for i in range(num_ahead)), ageing=ageing)
    waiting.add(place("last", due_s=-1.0, arrival_s=1.0), 0.0)
    num_admitted, arrivals, blocks = 0, iter(more), iter(blocked)
    while True:
        waiting.expire(0.0)
        num, important = next(arrivals, (1, False))
        for i in range(num):
            waiting.add(place(f"{num_admitted}.{i}.{len(waiting)}", importance=important), 0.0)
        taken = waiting.pop()
        if taken.request == "last":
            break
        if not taken.is_aside and next(blocks, False):
            waiting.put_back(taken.request)
        else:
            num_admitted += not (taken.is_aside or taken.importance)
    assert num_admitted <= (num_ahead + 1) * ageing


KINDS: dict[str, dict[str, Any]] = {
    "begun": {"has_begun": True},
    "important": {"importance": 1},
    "in time": {},
    "late": {"due_s": -1.0},
}


@pytest.mark.parametrize("other", ["begun", "important", "late"])
def test_nobody_is_bypassed_by_one_of_another_kind(other: str) -> None:
    waiting = order(place("in time"), place(other, **KINDS[other]))
    before = names(waiting)
    waiting.bypass(before[:1], before[1])
    assert names(waiting) == before


def test_nobody_is_bypassed_where_one_that_has_begun_waits_among_them() -> None:
    waiting = order(place("a"), place("b"), place("begun", has_begun=True))
    waiting.bypass(["begun", "a"], "b")
    assert names(waiting) == ["begun", "a", "b"]


@given(st.integers(1, 5), st.integers(0, 6), st.lists(st.integers(1, 4), max_size=300))
def test_the_wait_of_one_aside_that_is_always_bypassed_is_bounded(
    ageing: int, num_ahead: int, numbers: list[int]
) -> None:
    waiting = order(*(place(f"ahead{i}", due_s=-1.0) for i in range(num_ahead)), ageing=ageing)
    waiting.add(place("last", due_s=-1.0, arrival_s=1.0), 0.0)
    num_steps, more = (num_ahead + 1) * (ageing + 1), iter(numbers)
    for step in range(num_steps):
        waiting.expire(0.0)
        passing = [f"r{step}.{i}" for i in range(next(more, 1))]
        for name in passing:
            waiting.add(place(name, due_s=-1.0, arrival_s=2.0 + step), 0.0)
        waiting.bypass(["last"], passing[0])
        for _ in passing:
            if waiting.pop().request == "last":
                return
    pytest.fail(f"it was bypassed in {num_steps} steps")


def test_one_that_bypasses_another_does_not_take_the_batch_that_it_is_owed() -> None:
    waiting = order(aside("bypassed"), aside("first", 1.0), aside("second", 2.0), ageing=1)
    waiting.bypass(["bypassed"], "first")
    assert [waiting.pop().request for _ in range(2)] == ["first", "second"]
    waiting.expire(0.0)
    assert waiting.owes("bypassed")


def test_one_in_time_that_is_bypassed_keeps_no_owed_batch_from_those_aside() -> None:
    in_time = (place(name, due_s=due_s) for name, due_s in (("a", 10.0), ("b", 11.0), ("c", 12.0)))
    waiting = order(*in_time, aside("late"), ageing=1)
    waiting.bypass(["a"], "b")
    assert served(waiting) == ["b", "late", "c", "a"]


def test_one_that_left_while_it_was_bypassed_is_gone() -> None:
    waiting = order(*(place(name) for name in "abcd"))
    waiting.bypass(["a", "b"], "c")
    waiting.remove("a")
    assert served(waiting) == ["c", "d", "b"]


def test_one_that_was_bypassed_taken_and_put_back_is_at_its_own_place() -> None:
    waiting = order(*(place(name) for name in "abc"))
    waiting.bypass(["a"], "b")
    assert [waiting.pop().request for _ in range(3)] == ["b", "c", "a"]
    for name in "ac":
        waiting.put_back(name)
    assert names(waiting) == ["a", "c"]


def test_one_that_is_bypassed_for_long_leaves_nothing_behind() -> None:
    waiting = order(place("bypassed", due_s=1e6), ageing=10**9)
    for i in range(1000):
        waiting.add(place(f"r{i}", due_s=1e7 + i), 0.0)
    for _ in range(500):
        waiting.expire(0.0)
        waiting.bypass(["bypassed"], next(one for one in names(waiting) if one != "bypassed"))
        waiting.pop()
        assert len(waiting._in_time._entries) <= 2 * len(waiting) + 64


def test_one_that_runs_is_served_no_later_than_who_waits_for_it() -> None:
    waiting, runs = order(place("urgent", due_s=1e3), place("other", due_s=2e3)), aside("runs")
    own_rank = waiting.rank(runs)
    waiting.lend_rank("other", 100, "runs")
    waiting.lend_rank("urgent", 100, "runs")
    assert waiting.rank(runs) == waiting.rank(place("urgent", due_s=1e3)) < own_rank
    waiting.expire(0.0)
    assert waiting.rank(runs) == own_rank


def test_one_that_waits_is_late_once_what_is_left_of_it_no_longer_fits() -> None:
    waiting = order(place("waits", due_s=5.0, num_tokens=400))
    waiting.lend_rank("waits", 100, "runs")
    assert waiting.expire(3.5) == []
    assert waiting.backlog_s == pytest.approx(waiting.step_s + 100 * TOKEN_S)
    assert waiting.expire(4.5) == ["waits"]


def test_one_that_is_preempted_gives_back_what_it_was_lent() -> None:
    waiting = order(place("urgent", due_s=1e3), place("other", due_s=2e3))
    waiting.lend_rank("urgent", 100, "runs")
    waiting.add(aside("runs"), 0.0)
    waiting.expire(0.0)
    assert names(waiting) == ["urgent", "other", "runs"]


@pytest.mark.parametrize(
    ("lender", "importance", "pays"), [("late", 0, True), ("late", 3, False), ("in time", 0, False)]
)
def test_one_that_runs_gets_the_batch_of_who_waits_for_it_if_that_is_no_more_important(
    lender: str, importance: int, pays: bool
) -> None:
    late = place("late", due_s=-1.0, importance=importance)
    waiting = order(place("in time", due_s=1e3, importance=3), late, ageing=1)
    while not waiting.owes_one_waiting:
        waiting.add(place("served", due_s=5.0, importance=3), 0.0)
        waiting.pop()
    waiting.lend_rank(lender, 100, "runs")
    assert waiting.pays(aside("runs", 1.0)) == pays


def test_those_aside_get_one_admission_in_so_many() -> None:
    waiting = order(*(place(f"aside{i}", due_s=-1.0) for i in range(50)))
    for i in range(10 * AGEING):
        waiting.add(place(f"r{i}"), 0.0)
    first = [waiting.pop() for _ in range(10 * AGEING)]
    assert sum(one.is_aside for one in first) == 10 - 1


def test_those_aside_owe_each_other_nothing() -> None:
    waiting = order(
        *(place(f"{i}", inf, 10_000, arrival_s=1.0 - i / 99) for i in range(9)), ageing=1
    )
    assert served(waiting) == [f"{8 - i}" for i in range(9)]
    assert not waiting.owed.is_due


def test_a_request_that_is_put_back_was_not_admitted() -> None:
    waiting = order(place("aside", due_s=-1.0), place("blocked"), place("r", due_s=20.0))
    for _ in range(3 * AGEING):
        waiting.expire(0.0)
        assert waiting.pop().request == "blocked"
        assert waiting.first() is not None
        waiting.put_back("blocked")
    assert served(waiting) == ["blocked", "r", "aside"]


def test_tries_to_admit_a_blocked_request_do_not_hide_the_overload() -> None:
    waiting = order(place("blocked"), share_aside={0: 0.5})
    for _ in range(100):
        waiting.pop()
        waiting.put_back("blocked")
    assert waiting.share_aside == pytest.approx({0: 0.5})


def test_one_whose_turn_came_while_blocked_goes_first_once_it_can() -> None:
    waiting = order(place("aside", due_s=-1.0), place("r"), ageing=1)
    waiting.pop()
    waiting.add(place("next"), 0.0)
    assert waiting.pop().request == "aside"
    waiting.put_back("aside")
    assert served(waiting) == ["aside", "next"]


def test_what_was_taken_can_be_put_back_in_the_same_step_only() -> None:
    waiting = order(place("r"))
    waiting.pop()
    assert waiting.took("r")
    waiting.expire(0.0)
    assert not waiting.took("r")
    with pytest.raises(KeyError):
        waiting.put_back("r")


def owing(*places: Place) -> WaitingOrder:
    """An order that owes a batch to those that stepped aside."""
    waiting = order(place("before"), *places, ageing=1)
    assert waiting.pop().request == "before"
    assert waiting.owed.is_due
    return waiting


def aside(name: str, arrival_s: float = 0.0) -> Place:
    one = place(name, due_s=-1.0)
    one.arrival_s, one.is_aside = arrival_s, True
    return one


def test_one_that_runs_gets_one_batch_each_time_that_one_is_owed() -> None:
    waiting = owing()
    assert waiting.pays(aside("runs"))
    assert not waiting.pays(aside("runs"))


def test_what_is_owed_goes_to_the_first_of_those_that_run_and_those_that_wait() -> None:
    waiting = owing(aside("waits", 5.0))
    assert not waiting.pays(aside("runs", 9.0))
    assert waiting.owes("waits")
    assert waiting.pays(aside("runs", 1.0))
    assert not waiting.owes("waits")


def test_nothing_is_owed_to_one_that_is_in_time() -> None:
    waiting = owing(place("next"))
    assert not waiting.pays(place("runs"))
    assert not waiting.owes("next")


def test_one_that_is_owed_a_batch_waits_for_more_important_ones_that_are_in_time() -> None:
    waiting = owing(aside("late"))
    waiting.add(place("r", importance=9), 0.0)
    assert names(waiting) == served(waiting) == ["r", "late"]


def _push(waiting: WaitingOrder, i: int, due_s: float) -> None:
    waiting.add(place(f"r{i}", due_s=due_s), 0.0)


@pytest.mark.parametrize("due_s", [1e4, -1.0])
@pytest.mark.parametrize(
    "leave",
    [
        lambda waiting, i: waiting.pop(),
        lambda waiting, i: waiting.remove(f"r{i}"),
        lambda waiting, i: waiting.expire(2e4) and waiting.pop(),
    ],
)
def test_no_heap_keeps_requests_that_left_beyond_twice_those_that_wait(
    leave: Callable[[WaitingOrder, int], Any], due_s: float
) -> None:
    waiting = order()
    for i in range(20):
        _push(waiting, -1 - i, 1e4)
    for i in range(2000):
        _push(waiting, i, due_s)
        if i % 3 or i > 1000:
            leave(waiting, i)
        most = 2 * len(waiting) + 65
        heaps: Any = waiting._in_time, waiting._aside, waiting._expiring
        assert max(len(heap._entries) for heap in heaps) <= most


def test_the_first_few_of_many_come_without_sorting_all() -> None:
    waiting = order(*(place(f"r{i}", due_s=float(i)) for i in range(1000)), now_s=-1e3)
    assert [one.request for one in islice(waiting, 3)] == ["r0", "r1", "r2"]
    assert len(waiting) == 1000


def test_an_empty_order_has_nobody_to_serve() -> None:
    waiting = order()
    assert waiting.first() is None
    assert names(waiting) == []
    with pytest.raises(IndexError):
        waiting.pop()


def test_what_stepped_aside_leaves_nothing_among_those_in_time() -> None:
    waiting = order(place("vip", due_s=1e6))
    for i in range(1000):
        _push(waiting, i, due_s=10.0)
    waiting.expire(20.0)
    assert waiting._num_aside == 1000
    assert len(waiting._in_time._entries) < 100


def test_an_owed_batch_that_was_not_taken_leaves_the_order_as_it_was() -> None:
    long, short = place("long", inf, 100), place("short", inf, 1, arrival_s=1.0)
    waiting = order(long, ageing=1)
    waiting.add(place("first", inf, 1), 0.0)
    assert waiting.pop().request == "first"
    assert waiting.pop().request == "long"
    waiting.put_back(long.request)
    waiting.add(short, 0.0)
    waiting.owed.num_tokens = 0
    assert served(waiting)[0] == "short"


def test_an_owed_batch_goes_to_the_next_one_where_the_first_cannot_be_admitted() -> None:
    waiting = order(place("blocked", inf), place("free", inf, arrival_s=1.0), ageing=3)
    for i in range(8):
        waiting.add(place(f"r{i}", due_s=1e6 + i), 2.0)
    admitted = []
    for _ in range(8):
        waiting.expire(2.0)
        taken = waiting.pop()
        if taken.request == "blocked":
            waiting.put_back(taken.request)
        else:
            admitted.append(taken.request)
    assert admitted[:5] == ["r0", "r1", "r2", "free", "r3"]


def test_one_that_is_put_back_late_is_told_of_as_the_next_step_begins() -> None:
    waiting = order(place("r", due_s=5.0))
    waiting.expire(0.0)
    waiting.pop()
    waiting.put_back("r")
    assert waiting.expire(6.0) == ["r"]


@given(st.lists(acts, max_size=60))
def test_the_backlog_is_the_prefill_of_those_in_time(done: list[Any]) -> None:
    waiting, now_s, numbers = order(), 100.0, iter(range(1000))
    for act, what in done:
        if act == "add":
            waiting.add(what(f"r{next(numbers)}", now_s), now_s)
        elif act == "step":
            now_s += what
            waiting.expire(now_s)
        elif act == "pop" and len(waiting):
            waiting.pop()
        in_time = (one.num_tokens for one in waiting if not one.is_aside)
        assert waiting.backlog_s == pytest.approx(TOKEN_S * sum(in_time))
