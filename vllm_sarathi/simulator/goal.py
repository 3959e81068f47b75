"""What has to hold for a rate to be within capacity."""

from dataclasses import dataclass

from vllm_sarathi.metrics.latency import Objectives
from vllm_sarathi.simulator.recorder import StopRule
from vllm_sarathi.simulator.report import Report

# Width of the bracket that a capacity search ends with, as a share of the rate.
PRECISION = 0.02


@dataclass(frozen=True, slots=True)
class CapacityGoal:
    """What has to hold at a rate for it to be within capacity.

    Sarathi-Serve's definition (section 5): P99 TBT within the objective, and a median
    scheduling delay that shows no growing queue. Or a share of requests that meet all
    their objectives.

    Args:
        tbt_s: limit for the P99 time between tokens; None asks nothing.
        scheduling_delay_s: limit for the median delay before a request is scheduled.
        goodput: share of requests that must meet ``objectives``; None asks nothing.
        objectives: of every request, for ``goodput``; None takes each class's own.
    """

    tbt_s: float | None = None
    scheduling_delay_s: float = 2.0
    goodput: float | None = None
    objectives: Objectives | None = None

    def met(self, report: Report) -> bool:
        """Whether a run met it."""
        delay_s = report.percentile("scheduling_delay_s", 50)
        if not report.completed or delay_s is None or delay_s > self.scheduling_delay_s:
            return False
        tbt_s = report.gaps.percentile(99)
        if self.tbt_s is not None and tbt_s is not None and tbt_s > self.tbt_s:
            return False
        if self.goodput is None:
            return True
        return (report.goodput(self.objectives) or 0.0) >= self.goodput

    @property
    def stop_rule(self) -> StopRule:
        """When a run has failed already."""
        return StopRule(self.tbt_s, self.scheduling_delay_s)
