"""Virtual time: what ``time.time`` and ``time.monotonic`` say during a simulation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

EPOCH_S = 1_700_000_000.0


class VirtualClock:
    """A clock that moves only when it is told to.

    ``time.perf_counter`` stays real: it measures what a scheduler itself costs.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let this process read virtual time; real time is back afterwards, whatever happens.

        Other threads see virtual time too while it lasts.
        """
        clocks: dict[str, Any] = {
            "time": self._time_s,
            "monotonic": self._monotonic_s,
            "time_ns": lambda: round(self._time_s() * 1e9),
            "monotonic_ns": lambda: round(self._monotonic_s() * 1e9),
        }
        with mock.patch.multiple(time, **clocks):
            yield

    def _time_s(self) -> float:
        return EPOCH_S + self.now_s

    def _monotonic_s(self) -> float:
        return self.now_s
