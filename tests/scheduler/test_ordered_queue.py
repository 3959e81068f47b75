"""vLLM's queue of waiting requests, in an order of ours."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.core.sched.request_queue import RequestQueue

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.owed import AGEING
from vllm_sarathi.policy.place import Place
from vllm_sarathi.scheduler.ordered_queue import OrderedQueue

NAMES = count()
TTFT_S = 1e12  # the queue reads the clock; in these tests everybody is in time


@dataclass(eq=False)
class Waiting:
    """What a queue's place reads of a vLLM request."""

    arrival_time: float
    num_tokens: int = 5
    num_output_tokens: int = 0
    request_id: str = field(default_factory=lambda: f"request {next(NAMES)}")


def place(request: Waiting) -> Place:
    return Place(
        request,
        request.arrival_time,
        request.arrival_time + TTFT_S,
        request.num_tokens,
        has_begun=request.num_output_tokens > 0,
    )


def queue(order: WaitingOrder | None = None) -> OrderedQueue:
    return OrderedQueue(WaitingOrder() if order is None else order, place)


def test_it_has_all_that_vllms_interface_asks() -> None:
    assert isinstance(queue(), RequestQueue)


def test_a_request_whose_tokens_already_flow_goes_first() -> None:
    waiting = queue()
    waiting.add_request(Waiting(0.0))
    preempted = Waiting(9.0, 5000, num_output_tokens=3)
    waiting.prepend_request(preempted)
    assert waiting.peek_request() is preempted


def test_in_overload_a_long_prompt_is_overtaken_only_by_those_that_come_soon_after_it() -> None:
    waiting = queue(WaitingOrder(prefill_weight=8.0, token_s=1e-3, share_aside={0: 1.0}))
    long = Waiting(0.0, 2000)
    waiting.add_request(long)
    for arrival_s in range(100):
        waiting.add_request(Waiting(float(arrival_s), 100))
    before = [request.arrival_time for request in iter(waiting.pop_request, long)]
    assert before == list(range(38))  # 2 s and 0.1 s of prefill count 20 times


requests = st.builds(
    Waiting, st.integers(0, 100).map(float), st.integers(1, 5000), st.integers(0, 1)
)


@given(st.lists(requests, max_size=40), st.data())
def test_it_keeps_vllms_contract_in_the_order_of_deadlines(
    added: list[Waiting], data: st.DataObject
) -> None:
    waiting = queue()
    half = len(added) // 2
    waiting.prepend_requests(added[:half])
    for request in added[half:]:
        waiting.prepend_request(request)
    gone = data.draw(st.lists(st.sampled_from(added), unique=True)) if added else []
    waiting.remove_requests(gone)
    waiting.remove_requests(gone)
    left = [request for request in added if request not in gone]
    left.sort(key=lambda r: (r.num_output_tokens == 0, r.arrival_time))
    assert (len(waiting), bool(waiting)) == (len(left), bool(left))
    assert list(waiting) == left
    assert list(islice(waiting, 3)) == left[:3]
    assert [waiting.pop_request() for _ in range(len(waiting))] == left


@given(st.lists(requests, min_size=1, max_size=20), st.integers(0, 20))
def test_the_front_is_what_it_gives_next(added: list[Waiting], num_taken: int) -> None:
    waiting = queue()
    for request in added:
        waiting.add_request(request)
    for _ in range(min(num_taken, len(added) - 1)):
        waiting.pop_request()
    first = waiting.peek_request()
    assert waiting.peek_request() is first
    assert next(iter(waiting)) is first
    assert waiting.pop_request() is first
    assert first not in list(waiting)


def test_one_request_can_be_removed_once() -> None:
    waiting, request, other = queue(), Waiting(0.0), Waiting(1.0)
    waiting.add_request(request)
    waiting.add_request(other)
    waiting.remove_request(request)
    assert list(waiting) == [other]
    with pytest.raises(ValueError, match=f"{request.request_id} is not in the queue"):
        waiting.remove_request(request)


@pytest.mark.parametrize("take", [OrderedQueue.peek_request, OrderedQueue.pop_request])
def test_an_empty_queue_has_nothing_to_give(take: Callable[[OrderedQueue], object]) -> None:
    waiting = queue()
    assert not waiting
    with pytest.raises(IndexError):
        take(waiting)


def test_equal_prompts_keep_their_order_while_load_changes() -> None:
    order = WaitingOrder()
    waiting = queue(order)
    alike = [Waiting(1000.0 + i, 1000) for i in range(300)]
    for request in alike:
        waiting.add_request(request)
        order.token_s *= 1.01
    assert list(waiting) == alike


def test_a_request_put_back_is_not_looked_up_again() -> None:
    looked_up: list[Waiting] = []

    def noted(request: Waiting) -> Place:
        looked_up.append(request)
        return place(request)

    waiting = OrderedQueue(WaitingOrder(), noted)
    request = Waiting(0.0)
    waiting.add_request(request)
    for _ in range(3):
        waiting.prepend_requests([waiting.pop_request()])
    assert looked_up == [request]


def test_a_preempted_request_is_looked_up_again_for_it_was_admitted() -> None:
    waiting, request = queue(), Waiting(9.0)
    waiting.add_request(Waiting(0.0))
    waiting.add_request(request)
    waiting.remove_request(request)
    request.num_output_tokens = 1
    waiting.prepend_request(request)
    assert waiting.peek_request() is request


def test_requests_passed_over_in_every_step_bring_no_turn_for_those_aside() -> None:
    order = WaitingOrder()
    waiting = queue(order)
    blocked, ready = Waiting(0.0), Waiting(1.0)
    waiting.add_request(blocked)
    waiting.add_request(ready)
    for _ in range(2 * AGEING):
        order.expire(0.0)
        waiting.prepend_requests([waiting.pop_request()])
    assert not order.owed.is_due
