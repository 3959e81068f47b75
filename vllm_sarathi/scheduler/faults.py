"""Contains what goes wrong in our part of a step: vLLM goes on without it."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from vllm.logger import init_logger

from vllm_sarathi.metrics.recorder import FaultPlace

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

MOST_FAULTS = 3
"""Faults within ``WITHIN_STEPS`` after which every decision is left to vLLM: what fails in one
step after the other never plans, and one that fails once an hour harms nobody."""

WITHIN_STEPS = 100


@dataclass(slots=True)
class Faults:
    """The faults of one scheduler.

    Attributes:
        listen: told of each: where it happened, and the exception.
        is_given_up: whether so many happened that planning is to end for good.
    """

    are_raised: ClassVar[bool] = False
    """Whether they are raised all the same: tests and simulations shall not hide any."""

    listen: list[Callable[[FaultPlace, Exception], None]] = field(default_factory=list)
    is_given_up: bool = False
    _num_steps: int = 0
    _last: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_FAULTS))
    _is_told: bool = False

    def step(self) -> None:
        """Note that a step begins."""
        self._num_steps += 1

    def contained(self, where: FaultPlace) -> "_Contained":
        """A block that an exception ends, and nothing else.

        Args:
            where: what is done there, for the log and the metric.
        """
        return _Contained(self, where)

    def note(self, where: FaultPlace, error: Exception) -> None:
        """Tell of a fault, and give up if there were many."""
        if not self._is_told:
            self._is_told = True
            logger.error(
                "exception in the SARATHI scheduler (%s): vLLM goes on without it. Only this one "
                "is logged; vllm_sarathi:faults_total counts the rest",
                where,
                exc_info=error,
            )
        for told in self.listen:
            with suppress(Exception):
                told(where, error)
        self._last.append(self._num_steps)
        is_often = len(self._last) == MOST_FAULTS and self._num_steps - self._last[0] < WITHIN_STEPS
        if is_often and not self.is_given_up:
            self.is_given_up = True
            logger.error(
                "%d faults in the SARATHI scheduler within %d steps, the last in %r (%r): from now "
                'on vLLM schedules alone, as under preset "observe"',
                MOST_FAULTS,
                WITHIN_STEPS,
                where,
                error,
            )


class _Contained(NamedTuple):
    """Not made by ``contextlib``, whose generators cost more: there are three in every step."""

    faults: Faults
    where: FaultPlace

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or self.faults.are_raised:
            return False
        self.faults.note(self.where, error)
        return True
