"""vLLM's queue of waiting requests, in an order of ours."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Place


class OrderedQueue(RequestQueue):
    """A queue of vLLM's interface over a ``WaitingOrder``.

    As in vLLM's priority queue, there is no place in front of all to put a request back to.

    Args:
        order: the order.
        place: makes the place of a request.
    """

    def __init__(self, order: WaitingOrder, place: Callable[[Any], Place]) -> None:
        self._order = order
        self._place = place

    def add_request(self, request: Any) -> None:
        """Add a request, at its own place."""
        self._order.add(self._place(request), time.time())

    def prepend_request(self, request: Any) -> None:
        """Put a request back, at its own place."""
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Put requests back that were taken and not admitted, at their own places."""
        for request in requests:
            if self._order.took(request):
                self._order.put_back(request)
            else:
                self.add_request(request)

    def pop_request(self) -> Any:
        """Take the request that is served next; ``IndexError`` if there is none."""
        return self._order.pop().request

    def peek_request(self) -> Any:
        """The request that is served next; ``IndexError`` if there is none."""
        place = self._order.first()
        if place is None:
            raise IndexError("no request waits")
        return place.request

    def remove_request(self, request: Any) -> None:
        """Remove a request; ``ValueError`` if it is not there."""
        if request not in self._order:
            raise ValueError(f"request {request.request_id} is not in the queue")
        self._order.remove(request)

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Remove those of the requests that are there."""
        for request in requests:
            if request in self._order:
                self._order.remove(request)

    def __bool__(self) -> bool:
        return len(self._order) > 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        """Requests in order. The first few cost little, however many wait."""
        return (place.request for place in self._order)
