"""What a live server came to, in the same figures as a simulated run."""

import numpy as np

from vllm_sarathi.report.lines import Step, Waits
from vllm_sarathi.simulator.load.recording import Recording
from vllm_sarathi.simulator.load.workload import Workload
from vllm_sarathi.simulator.results.recorder import Gaps
from vllm_sarathi.simulator.results.report import PerRequest, Report

LABEL = "recorded"


def recorded_report(recording: Recording, workload: Workload) -> Report:
    """The report of the requests that a recording can replay.

    Of the gaps between tokens a step log has each step's longest one and the mean: the others
    count as alike. When requests began to run it does not say.

    Args:
        recording: the recording.
        workload: its requests, as they are replayed.
    """
    requests, steps = recording.requests, recording.steps
    arrival_s, e2e_s = workload.arrival_s, np.array([one.e2e_s for one in requests])
    num_output = workload.lengths.num_output
    ttft_s = np.array([one.ttft_s for one in requests])
    later = np.maximum(num_output - 1, 1)
    undefined = np.full(len(requests), np.nan)
    first_s = steps[0].ended_s - (steps[0].duration_s or 0.0)
    return Report(
        label=LABEL,
        workload=workload,
        completed=True,
        num_finished=len(requests),
        duration_s=float((arrival_s + e2e_s).max()),
        num_steps=len(steps),
        num_tokens=sum(step.work.num_tokens for step in steps if step.work),
        num_output_tokens=int(num_output.sum()),
        num_preemptions=sum(step.num_preempted for step in steps),
        stage_busy_s=(sum(step.duration_s or 0.0 for step in steps),),
        stage_span_s=steps[-1].ended_s - first_s,
        wall_s=0.0,
        gaps=_gaps(steps),
        per_request=PerRequest(
            scheduling_delay_s=undefined,
            ttft_s=ttft_s,
            tpot_s=np.where(num_output > 1, (e2e_s - ttft_s) / later, np.nan),
            e2e_s=e2e_s,
            max_gap_s=np.where(num_output > 1, [one.longest_gap_s for one in requests], np.nan),
            fluidity=undefined,
        ),
    )


def _gaps(steps: list[Step]) -> Gaps:
    gaps = Gaps()
    for step in steps:
        for waits in step.gaps.values():
            gaps.add(waits.longest_s)
            if waits.num > 1:
                gaps.add(_mean_of_others(waits), waits.num - 1)
    return gaps


def _mean_of_others(waits: Waits) -> float:
    """The mean without the longest; both are rounded."""
    return max(0.0, (waits.num * waits.mean_s - waits.longest_s) / (waits.num - 1))
