"""What has to hold at a rate for it to be within capacity."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.results.recorder import StopRule
from vllm_sarathi.simulator.results.report import Report

_OBJECTIVES = ("ttft_s", "tpot_s", "tbt_s", "e2e_s")


class Check(NamedTuple):
    """One condition of a goal, and what a run came to.

    Args:
        figure: what is limited, with its unit at the end.
        allowed: "at most" or "at least".
        limit: the limit.
        value: what the run came to; None where nothing is defined.
        met: whether the value is within the limit.
    """

    figure: str
    allowed: str
    limit: float
    value: float | None
    met: bool

    @classmethod
    def at_most(cls, figure: str, limit: float, value: float | None) -> "Check":
        """A limit from above; what is undefined is within it."""
        return cls(figure, "at most", limit, value, value is None or value <= limit)

    @classmethod
    def at_least(cls, figure: str, limit: float, value: float | None) -> "Check":
        """A limit from below; what is undefined is not within it."""
        return cls(figure, "at least", limit, value, (value or 0.0) >= limit)


@dataclass(frozen=True, slots=True)
class CapacityGoal:
    """What has to hold at a rate for it to be within capacity.

    Sarathi-Serve's definition (section 5): P99 TBT within the objective, and a median
    scheduling delay that shows no growing queue. P99 TTFT and P99 TPOT can be limited
    alike. Or a share of requests has to meet all their objectives.

    Args:
        tbt_s: limit for the P99 time between tokens; None asks nothing.
        scheduling_delay_s: limit for the median delay before a request is scheduled.
        goodput: share of requests that must meet ``objectives``; None asks nothing.
        objectives: of every request, for ``goodput``; None takes each class's own.
        ttft_s: limit for the P99 time to first token; None asks nothing.
        tpot_s: limit for the P99 of the requests' mean times per token; None asks nothing.

    Raises:
        ValueError: names the limit that is not above 0, or has no effect.
    """

    tbt_s: float | None = None
    scheduling_delay_s: float = 2.0
    goodput: float | None = None
    objectives: Objectives | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("tbt_s", "scheduling_delay_s", "ttft_s", "tpot_s"):
            value = getattr(self, name)
            if value is None and name != "scheduling_delay_s":
                continue
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name}={value!r} must be above 0 seconds")
        if self.goodput is not None and not 0 < self.goodput <= 1:
            raise ValueError(f"goodput={self.goodput!r} must be a share above 0, at most 1")
        if self.goodput is None and self.objectives is not None:
            raise ValueError(f"objectives={self.objectives!r} have no effect without goodput")

    def met(self, report: Report) -> bool:
        """Whether a run met it."""
        return all(check.met for check in self.checks(report))

    def checks(self, report: Report) -> tuple[Check, ...]:
        """Every condition, and what a run came to; that it finished at all comes last."""
        delay_s = report.percentile("scheduling_delay_s", 50)
        delay = Check.at_most("scheduling_delay_p50_s", self.scheduling_delay_s, delay_s)
        finished = report.num_finished / len(report.workload)
        return (
            *self._limits(report),
            *self._shares(report),
            delay._replace(met=delay.met and delay_s is not None),
            Check.at_least("finished_share", 1.0, finished)._replace(met=report.completed),
        )

    def _limits(self, report: Report) -> list[Check]:
        """The 99th percentiles that are limited, in milliseconds."""
        checks = []
        for metric in ("ttft_s", "tpot_s", "tbt_s"):
            limit_s = getattr(self, metric)
            if limit_s is not None:
                value_s = report.percentile(metric, 99)
                check = Check.at_most(f"{metric.removesuffix('_s')}_p99_ms", limit_s, value_s)
                value_ms = None if value_s is None else value_s * 1e3
                checks.append(check._replace(limit=limit_s * 1e3, value=value_ms))
        return checks

    def _shares(self, report: Report) -> list[Check]:
        """The share of requests that meets every objective, and what meets each alone."""
        if self.goodput is None:
            return []
        joint = Check.at_least("goodput", self.goodput, report.goodput(self.objectives))
        asked = self.objectives or Objectives()
        alone = [
            (name, replace(Objectives(), **{name: getattr(asked, name)}))
            for name in _OBJECTIVES
            if getattr(asked, name) is not None
        ]
        return [
            joint,
            *(
                Check.at_least(
                    f"{name.removesuffix('_s')}_met_share", self.goodput, report.goodput(one)
                )
                for name, one in alone
            ),
        ]

    @property
    def stop_rule(self) -> StopRule:
        """When a run has failed already."""
        return StopRule(
            self.tbt_s,
            self.scheduling_delay_s,
            self.ttft_s,
            self.tpot_s,
            self.goodput,
            self.objectives,
        )
