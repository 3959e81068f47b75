"""What a run comes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vllm_sarathi.latency import Objectives, goodput, percentile
from vllm_sarathi.simulator.load.workload import NO_OBJECTIVES, Floats, Workload
from vllm_sarathi.simulator.machine.pipeline import Pipeline
from vllm_sarathi.simulator.results.recorder import Gaps, Recorder, StepHistory


@dataclass(frozen=True, slots=True)
class PerRequest:
    """One entry for each offered request; NaN where undefined."""

    scheduling_delay_s: Floats
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    max_gap_s: Floats
    fluidity: Floats


@dataclass(frozen=True, slots=True)
class Report:
    """One simulated run. Times are virtual, but for ``wall_s``.

    Args:
        label: the engine's name.
        completed: whether all requests were served; False at a limit.
        num_finished: requests served.
        duration_s: from time 0 to the last token.
        num_steps: batches executed.
        num_tokens: tokens executed, prefill and decode.
        num_output_tokens: tokens that served requests got.
        num_preemptions: requests put back for lack of KV memory.
        stage_busy_s: time that each pipeline stage of each replica worked.
        stage_span_s: from the first stage's first batch to the last stage's last.
        wall_s: real time of the whole run.
        gaps: all times between tokens.
        per_request: latency of each request.
        steps: every step, where the run kept them.
        num_extrapolated: steps beyond any that the deployment was calibrated on; None where
            it was not calibrated.
    """

    label: str
    workload: Workload
    completed: bool
    num_finished: int
    duration_s: float
    num_steps: int
    num_tokens: int
    num_output_tokens: int
    num_preemptions: int
    stage_busy_s: tuple[float, ...]
    stage_span_s: float
    wall_s: float
    gaps: Gaps
    per_request: PerRequest
    steps: StepHistory | None = None
    num_extrapolated: int | None = None

    @classmethod
    def of(
        cls,
        label: str,
        recorder: Recorder,
        completed: bool,
        pipelines: Sequence[Pipeline],
        wall_s: float,
    ) -> "Report":
        """Gather what a recorder and the pipeline of each replica kept."""
        first_s, last_s = recorder.stage_span_s or (0.0, 0.0)
        per_request = PerRequest(
            *(
                np.array(values)
                for values in (
                    recorder.delay_s,
                    recorder.ttft_s,
                    recorder.tpot_s,
                    recorder.e2e_s,
                    recorder.max_gap_s,
                    recorder.fluidity,
                )
            )
        )
        return cls(
            label=label,
            workload=recorder.workload,
            completed=completed,
            num_finished=int(np.isfinite(per_request.e2e_s).sum()),
            duration_s=recorder.last_s,
            num_steps=recorder.num_steps,
            num_tokens=recorder.num_tokens,
            num_output_tokens=recorder.num_output_tokens,
            num_preemptions=recorder.num_preemptions,
            stage_busy_s=tuple(busy_s for pipeline in pipelines for busy_s in pipeline.busy_s),
            stage_span_s=last_s - first_s,
            wall_s=wall_s,
            gaps=recorder.gaps,
            per_request=per_request,
            steps=recorder.steps,
            num_extrapolated=sum(pipeline.num_extrapolated for pipeline in pipelines)
            if pipelines[0].deployment.largest_step
            else None,
        )

    def percentile(self, metric: str, percent: float) -> float | None:
        """Percentile of a per-request metric, or of "tbt_s"; None if undefined."""
        if metric == "tbt_s":
            return self.gaps.percentile(percent)
        values = getattr(self.per_request, metric)
        return percentile(values[np.isfinite(values)], percent)

    @property
    def idle_share(self) -> float | None:
        """Share of the stages' time in which they did nothing: bubbles and empty queues."""
        if not self.stage_span_s:
            return None
        available_s = len(self.stage_busy_s) * self.stage_span_s
        share = 1 - sum(self.stage_busy_s) / available_s
        return share if share > 1e-9 else 0.0  # not what sums of floats leave

    @property
    def warm_up_share(self) -> float | None:
        """Share of the arrivals that came while the engine was still filling up.

        A request's mean time over the time in which requests arrived: only then has the
        engine as many requests as under a load that goes on. None before any has finished.
        """
        times_s = self.per_request.e2e_s[np.isfinite(self.per_request.e2e_s)]
        if not len(times_s):
            return None
        span_s = float(self.workload.arrival_s[-1])
        return min(1.0, float(times_s.mean()) / span_s) if span_s else 1.0

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens executed per second, prefill and decode."""
        return self.num_tokens / self.stage_span_s if self.stage_span_s else None

    @property
    def output_tokens_per_s(self) -> float | None:
        """Output tokens of served requests per second."""
        return self.num_output_tokens / self.duration_s if self.duration_s else None

    def met(self, objectives: Objectives) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each request, whether it was served and met all of these."""
        rows = self.per_request
        met = np.isfinite(rows.e2e_s)
        for values, limit in (
            (rows.ttft_s, objectives.ttft_s),
            (rows.tpot_s, objectives.tpot_s),
            (rows.max_gap_s, objectives.tbt_s),
            (rows.e2e_s, objectives.e2e_s),
        ):
            if limit is not None:
                met &= ~(values > limit)
        return met

    def goodput(self, objectives: Objectives | None = None) -> float | None:
        """Share of offered requests that meet their objectives.

        Args:
            objectives: of all requests; None takes each one's own class's.

        Returns:
            A share from 0 to 1; None if no request has an objective.
        """
        workload = self.workload
        asked = [qos.objectives for qos in workload.classes] if objectives is None else [objectives]
        if all(one == NO_OBJECTIVES for one in asked):
            return None
        if objectives is not None:
            return goodput(self.met(objectives).tolist(), len(workload))
        met = np.zeros(len(workload), bool)
        for index, qos in enumerate(workload.classes):
            members = workload.class_of == index
            met[members] = self.met(qos.objectives)[members]
        return goodput(met.tolist(), len(workload))

    @property
    def request_goodput(self) -> float | None:
        """Requests per second that meet their objectives, as ``vllm bench serve`` counts."""
        share = self.goodput()
        if share is None or not self.duration_s:
            return None
        return share * len(self.workload) / self.duration_s

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON. Milliseconds and seconds as the names say."""
        figures: dict[str, Any] = {
            "label": self.label,
            "workload": self.workload.name,
            "completed": self.completed,
            "offered_requests": len(self.workload),
            "finished_requests": self.num_finished,
            "duration_s": self.duration_s,
            "steps": self.num_steps,
            "tokens_per_s": self.tokens_per_s,
            "output_tokens_per_s": self.output_tokens_per_s,
            "preemptions": self.num_preemptions,
            "stage_idle_share": self.idle_share,
            "goodput": self.goodput(),
            "request_goodput": self.request_goodput,
            "wall_s": self.wall_s,
        }
        for name in ("scheduling_delay_s", "ttft_s", "e2e_s"):
            for percent in (50, 90, 99):
                figures[f"{name.removesuffix('_s')}_p{percent}_s"] = self.percentile(name, percent)
        for metric, levels in (("tpot", (50, 90, 99)), ("tbt", (50, 90, 99, 99.9))):
            for level in levels:
                value_s = self.percentile(f"{metric}_s", level)
                figures[f"{metric}_p{level:g}_ms"] = None if value_s is None else value_s * 1e3
        figures["tbt_max_ms"] = None if self.gaps.max_s is None else self.gaps.max_s * 1e3
        fluidity = self.percentile("fluidity", 50)
        if fluidity is not None:
            figures["fluidity_p50"] = fluidity
        if self.num_extrapolated is not None:
            figures["extrapolated_steps"] = self.num_extrapolated
        return figures
