"""Replicas of an engine behind a router, on one virtual clock."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, get_args

from vllm_sarathi.simulator.engine.clock import VirtualClock
from vllm_sarathi.simulator.engine.loop import EngineLoop
from vllm_sarathi.simulator.engine.requests import RequestSource

Router = Literal["round-robin", "least-load"]
ROUTERS: tuple[Router, ...] = get_args(Router)
_STOPPED = object()  # what a loop yields that has ended


@dataclass(slots=True)
class Routed:
    """The requests that the router sent to one replica.

    Args:
        source: where all requests come from.
    """

    source: RequestSource
    sent: "deque[tuple[float, Any]]" = field(default_factory=deque)

    @property
    def next_arrival_s(self) -> float | None:
        """When the next request arrives here, or may; None after the last."""
        return self.sent[0][0] if self.sent else self.source.next_arrival_s

    def take(self) -> Any:
        """The next request."""
        return self.sent.popleft()[1]


@dataclass(slots=True)
class Replica:
    """One engine, and how far it is.

    Args:
        loop: the engine's loop, whose source is ``routed``.
        routed: what the router sent here.
    """

    loop: EngineLoop
    routed: Routed
    now_s: float = 0.0
    steps: Iterator[None] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.loop.steps()

    @property
    def is_busy(self) -> bool:
        """Whether it has anything to do before the router sends more."""
        return bool(self.routed.sent) or self.loop.is_busy

    @property
    def load(self) -> int:
        """Requests that it has not finished."""
        num_there: int = self.loop.scheduler.get_num_unfinished_requests()
        return len(self.routed.sent) + num_there


def run_fleet(
    replicas: Sequence[Replica], source: RequestSource, router: Router, clock: VirtualClock
) -> bool:
    """Run until every request is done.

    The replica that is furthest behind goes first, so that each has come to a request's arrival
    before the router sends it. A replica may be up to one step further: the router sees the
    requests that this step finishes a little early.

    Args:
        replicas: on the same clock, each with a share of the same source.
        source: all requests.
        router: "round-robin", or "least-load": to the replica with the fewest unfinished
            requests.
        clock: virtual time.

    Returns:
        Whether all were done; False at the time limit or if the observer stopped a replica.
    """
    num_sent = 0
    while True:
        busy = (one for one in replicas if one.is_busy)
        behind = min(busy, key=attrgetter("now_s"), default=None)
        due_s = source.next_arrival_s
        if due_s is not None and (behind is None or behind.now_s >= due_s):
            in_turn = deque(replicas)
            in_turn.rotate(-num_sent)
            chosen = in_turn[0] if router == "round-robin" else min(in_turn, key=attrgetter("load"))
            if not chosen.is_busy:
                chosen.now_s = max(chosen.now_s, due_s)
            chosen.routed.sent.append((due_s, source.take()))
            num_sent += 1
            continue
        if behind is None:
            return True
        clock.now_s = behind.now_s
        if next(behind.steps, _STOPPED) is _STOPPED:
            return False
        behind.now_s = clock.now_s
