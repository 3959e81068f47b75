"""What a live server came to, in the same figures as a simulated run."""

import numpy as np

from vllm_sarathi.simulator.load.recording import Recording
from vllm_sarathi.simulator.load.workload import Workload
from vllm_sarathi.simulator.results.report import PerRequest, Report

LABEL = "recorded"


def recorded_report(recording: Recording, workload: Workload) -> Report:
    """The report of the requests that a recording can replay; gaps are of all its requests.

    No log says when requests began to run, so that scheduling delays are undefined.

    Args:
        recording: the recording.
        workload: its requests, as they are replayed.
    """
    requests, num_output = recording.requests, workload.lengths.num_output
    e2e_s = np.array([one.e2e_s for one in requests])
    ttft_s = np.array([one.ttft_s for one in requests])
    longest_s = np.array([one.longest_gap_s for one in requests])
    undefined = np.full(len(requests), np.nan)
    has_gaps = num_output > 1
    return Report(
        label=LABEL,
        workload=workload,
        completed=True,
        num_finished=len(requests),
        duration_s=float((workload.arrival_s + e2e_s).max()),
        num_steps=len(recording.costs),
        num_tokens=sum(work.num_tokens for work, _ in recording.costs),
        num_output_tokens=int(num_output.sum()),
        num_preemptions=recording.num_preemptions,
        stage_busy_s=(sum(duration_s for _, duration_s in recording.costs),),
        stage_span_s=recording.last_s - recording.first_s,
        wall_s=0.0,
        gaps=recording.gaps,
        per_request=PerRequest(
            scheduling_delay_s=undefined,
            ttft_s=ttft_s,
            tpot_s=np.where(has_gaps, (e2e_s - ttft_s) / np.maximum(num_output - 1, 1), np.nan),
            e2e_s=e2e_s,
            max_gap_s=np.where(has_gaps, longest_s, np.nan),
            fluidity=undefined,
        ),
    )
