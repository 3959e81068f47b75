"""Measures the real duration of steps.

With batches in flight, the time inside ``schedule()`` or from it to the result
says little: a step takes from one result to the next while the device is busy.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

Step = TypeVar("Step")


class _InFlight(NamedTuple, Generic[Step]):
    output: Any
    step: Step
    began_s: float | None
    fills_pipeline: bool


@dataclass(slots=True)
class StepTimer(Generic[Step]):
    """Turns schedules and results into durations.

    Attributes:
        num_stages: pipeline stages. A duration is the time of the slowest one, and
            known only of batches that leave no gap behind those before them.
    """

    num_stages: int = 1
    _in_flight: deque[_InFlight[Step]] = field(default_factory=deque)
    _last_result_s: float = 0.0
    _is_idle: bool = True

    @property
    def in_flight(self) -> Iterator[Step]:
        """Steps that are scheduled and not finished."""
        return (flying.step for flying in self._in_flight)

    def scheduled(self, output: Any, step: Step) -> None:
        """Note a batch with tokens that was just scheduled."""
        began_s = time.monotonic() if self._is_idle else None
        fills_pipeline = len(self._in_flight) + 1 >= self.num_stages
        self._in_flight.append(_InFlight(output, step, began_s, fills_pipeline))
        self._is_idle = False

    def idle(self) -> None:
        """Note a schedule that found nothing to run."""
        self._is_idle = not self._in_flight

    def finished(self, output: Any, drained: bool) -> tuple[Step, float | None] | None:
        """Note a result.

        Args:
            output: the object that ``scheduled`` was given; others are ignored.
            drained: whether no request is left.

        Returns:
            The step, and its duration in seconds or None where that cannot be told.
        """
        if not any(step.output is output for step in self._in_flight):
            return None
        while (done := self._in_flight.popleft()).output is not output:
            pass
        now_s = time.monotonic()
        began_s = self._last_result_s if done.began_s is None else done.began_s
        self._last_result_s = now_s
        self._is_idle = not self._in_flight and (drained or self.num_stages > 1)
        return done.step, now_s - began_s if done.fills_pipeline else None
