"""Time that passes when a test says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch


@dataclass
class Clock:
    """What ``time.time()`` and ``time.monotonic()`` return.

    Attributes:
        now_s: the time, in seconds.
    """

    now_s: float = 1e6


@contextmanager
def virtual_time() -> Iterator[Clock]:
    """Let both clocks stand at one that the test moves."""
    clock = Clock()
    with (
        patch("time.time", lambda: clock.now_s),
        patch("time.monotonic", lambda: clock.now_s),
    ):
        yield clock
