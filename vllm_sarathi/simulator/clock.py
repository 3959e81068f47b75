"""Virtual time: what ``time.time`` and ``time.monotonic`` say during a simulation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        with (
            mock.patch.object(time, "time", lambda: EPOCH_S + self.now_s),
            mock.patch.object(time, "monotonic", lambda: self.now_s),
            mock.patch.object(time, "time_ns", lambda: round((EPOCH_S + self.now_s) * 1e9)),
            mock.patch.object(time, "monotonic_ns", lambda: round(self.now_s * 1e9)),
        ):
            yield
