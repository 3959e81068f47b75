"""The queue of waiting requests that is ordered by deadline."""

from dataclasses import dataclass, field
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm_sarathi.scheduler.deadline_queue import DeadlineQueue

from vllm_sarathi.policy.deadlines import PromptDeadlines

NAMES = count()


@dataclass(eq=False)
class Waiting:
    """What a queue reads of a vLLM request."""

    arrival_time: float
    num_tokens: int
    num_output_tokens: int = 0
    request_id: str = field(default_factory=lambda: f"request {next(NAMES)}")


def queue(ttft_s: float = 1.0) -> DeadlineQueue:
    return DeadlineQueue(PromptDeadlines(ttft_s, mean_tokens=100.0), lambda r: r.num_tokens)


def test_a_prompt_of_mean_length_is_due_after_the_objective_and_others_in_proportion() -> None:
    deadlines = PromptDeadlines(2.0)
    for num_tokens in (50, 150):
        deadlines.observe(num_tokens)
    assert deadlines.mean_tokens == 100
    assert [deadlines.due_s(7.0, n) for n in (100, 200, 50)] == [9.0, 11.0, 8.0]


def test_the_mean_length_follows_a_load_that_changes() -> None:
    deadlines = PromptDeadlines(1.0)
    for num_tokens in [100] * 2000 + [900] * 5000:
        deadlines.observe(num_tokens)
    assert deadlines.mean_tokens > 890


def test_a_request_whose_tokens_already_flow_goes_first() -> None:
    waiting = queue()
    waiting.add_request(Waiting(0.0, 1))
    preempted = Waiting(9.0, 5000, num_output_tokens=3)
    waiting.prepend_request(preempted)
    assert waiting.peek_request() is preempted


def test_a_long_prompt_is_overtaken_only_by_those_that_come_soon_after_it() -> None:
    waiting = queue(ttft_s=1.0)
    long = Waiting(0.0, 2000)
    waiting.prepend_request(long)
    for arrival_s in range(100):
        waiting.prepend_request(Waiting(float(arrival_s), 100))
    before = [request.arrival_time for request in iter(waiting.pop_request, long)]
    assert before == list(range(19))


requests = st.builds(
    Waiting, st.floats(0, 100), st.integers(1, 5000), st.integers(0, 1), st.uuids().map(str)
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
    due_s = PromptDeadlines(1.0, 100.0).due_s
    left.sort(key=lambda r: due_s(r.arrival_time, r.num_tokens, r.num_output_tokens > 0))
    assert (len(waiting), bool(waiting)) == (len(left), bool(left))
    dues = [due_s(r.arrival_time, r.num_tokens, r.num_output_tokens > 0) for r in left]
    order = list(waiting)
    assert [due_s(r.arrival_time, r.num_tokens, r.num_output_tokens > 0) for r in order] == dues
    assert list(islice(waiting, 3)) == order[:3]
    assert [waiting.pop_request() for _ in range(len(waiting))] == order


def test_one_request_can_be_removed_once() -> None:
    waiting, request, other = queue(), Waiting(0.0, 5), Waiting(1.0, 5)
    waiting.add_request(request)
    waiting.add_request(other)
    waiting.remove_request(request)
    assert list(waiting) == [other]
    with pytest.raises(ValueError, match=f"{request.request_id} is not in the queue"):
        waiting.remove_request(request)


def test_an_empty_queue_has_nothing_to_give() -> None:
    for take in (queue().peek_request, queue().pop_request):
        with pytest.raises(IndexError):
            take()


def test_equal_prompts_keep_their_order_while_the_mean_length_changes() -> None:
    waiting = DeadlineQueue(PromptDeadlines(2.0), lambda request: request.num_tokens)
    for i in range(1000):
        waiting.add_request(Waiting(float(i), 5))
    while waiting:
        waiting.pop_request()
    alike = [Waiting(1000.0 + i, 1000) for i in range(300)]
    for request in alike:
        waiting.add_request(request)
    assert list(waiting) == alike


def test_a_request_put_back_is_not_looked_up_again() -> None:
    looked_up: list[Waiting] = []

    def num_tokens(request: Waiting) -> int:
        looked_up.append(request)
        return request.num_tokens

    waiting = DeadlineQueue(PromptDeadlines(1.0), num_tokens)
    request = Waiting(0.0, 5)
    waiting.add_request(request)
    for _ in range(3):
        waiting.prepend_requests([waiting.pop_request()])
    assert looked_up == [request]
