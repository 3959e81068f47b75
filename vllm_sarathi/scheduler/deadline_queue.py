"""A queue of waiting requests for vLLM that is ordered by deadline."""

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from vllm.v1.core.sched.request_queue import RequestQueue

from vllm_sarathi.policy.deadlines import PromptDeadlines

_MEAN_DRIFT = 1.25


class DeadlineQueue(RequestQueue):
    """vLLM's queue of waiting requests, the earliest deadline first.

    What a request has left to prefill is looked up once, for vLLM puts those that it passes
    over back in every step. Deadlines follow the mean length while requests wait. As in
    vLLM's priority queue, there is no place in front of all to put a request back to.

    Args:
        deadlines: tell when requests are due, and learn how long prompts are.
        num_prefill_tokens: prefill tokens that a request has left.
    """

    def __init__(
        self, deadlines: PromptDeadlines, num_prefill_tokens: Callable[[Any], int]
    ) -> None:
        self._deadlines = deadlines
        self._num_prefill_tokens = num_prefill_tokens
        self._num_tokens = WeakKeyDictionary[Any, int]()
        self._heap: list[tuple[float, float, int, Any]] = []
        self._turn = count()
        self._mean_tokens = deadlines.mean_tokens

    def add_request(self, request: Any) -> None:
        """Add a request that came."""
        self._num_tokens[request] = self._num_prefill_tokens(request)
        self._deadlines.observe(self._num_tokens[request])
        drift = self._deadlines.mean_tokens / max(self._mean_tokens, 1.0)
        if not 1 / _MEAN_DRIFT < drift < _MEAN_DRIFT:
            self._mean_tokens = self._deadlines.mean_tokens
            self._heap = [self._entry(turn, waiting) for _, _, turn, waiting in self._heap]
            heapify(self._heap)
        self.prepend_request(request)

    def _entry(self, turn: int, request: Any) -> tuple[float, float, int, Any]:
        num_tokens, arrival_s = self._num_tokens[request], request.arrival_time
        due_s = self._deadlines.due_s(arrival_s, num_tokens, bool(request.num_output_tokens))
        return due_s, arrival_s, turn, request

    def pop_request(self) -> Any:
        """Take the request that is due first; ``IndexError`` if there is none."""
        return heappop(self._heap)[-1]

    def peek_request(self) -> Any:
        """The request that is due first; ``IndexError`` if there is none."""
        return self._heap[0][-1]

    def prepend_request(self, request: Any) -> None:
        """Put a request back, at the place that its deadline gives it."""
        if request not in self._num_tokens:
            self._num_tokens[request] = self._num_prefill_tokens(request)
        heappush(self._heap, self._entry(next(self._turn), request))

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Put requests back, at the places that their deadlines give them."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: Any) -> None:
        """Remove a request; ``ValueError`` if it is not there."""
        if all(entry[-1] is not request for entry in self._heap):
            raise ValueError(f"request {request.request_id} is not in the queue")
        self.remove_requests((request,))

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Remove those of the requests that are there."""
        gone = set(requests)
        self._heap = [entry for entry in self._heap if entry[-1] not in gone]
        heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Any]:
        """Requests in order. The first few cost little, however many wait."""
        front = [(self._heap[0], 0)] if self._heap else []
        while front:
            entry, place = heappop(front)
            yield entry[-1]
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(self._heap):
                    heappush(front, (self._heap[child], child))
