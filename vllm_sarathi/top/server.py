"""Follows one server, whether it answers or not."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

from vllm_sarathi.top.scrape import Scrape, ScrapeError, address_of, scrape
from vllm_sarathi.top.span import Span

WINDOW_S = 30.0
"""How far back rates and percentiles reach."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a server.

    Attributes:
        span: what it showed over the window; None while it does not answer.
        problem: why it does not.
        since_s: since when it does not, on the monotonic clock.
    """

    span: Span | None
    problem: str = ""
    since_s: float = 0.0


class Server:
    """Scrapes a server from a thread of its own, so that a slow one delays no other.

    Attributes:
        name: its host and port.
        state: what the last scrape told.
    """

    def __init__(self, named: str) -> None:
        self._address = address_of(named)
        self._scrapes: deque[Scrape] = deque()
        self.name = urlsplit(self._address).netloc
        self.state = State(None, "no answer yet", time.monotonic())

    def follow(self, interval_s: float, num_scrapes: int | None = None) -> threading.Thread:
        """Scrape every so many seconds, without end or so many times."""
        rounds = count() if num_scrapes is None else range(num_scrapes)

        def run() -> None:
            due_s = time.monotonic()
            for _ in rounds:
                time.sleep(max(0.0, due_s - time.monotonic()))
                due_s = time.monotonic() + interval_s
                self.poll()

        thread = threading.Thread(target=run, name=self.name, daemon=True)
        thread.start()
        return thread

    def poll(self) -> None:
        """Scrape once."""
        try:
            new = scrape(self._address)
        except ScrapeError as error:
            since_s = time.monotonic() if self.state.span else self.state.since_s
            self.state = State(None, str(error), since_s)
            return
        if self._scrapes and not self._scrapes[-1].is_before(new):
            self._scrapes.clear()  # the server was started again
        self._scrapes.append(new)
        while len(self._scrapes) > 2 and self._scrapes[0].at_s < new.at_s - WINDOW_S:
            self._scrapes.popleft()
        self.state = State(Span(self._scrapes[0], new))
