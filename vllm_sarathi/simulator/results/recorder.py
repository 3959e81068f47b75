"""What a report needs of a run, kept as the run goes."""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, floor, log, sqrt
from operator import gt
from typing import Any

from vllm_sarathi.latency import Objectives, RequestTimes
from vllm_sarathi.simulator.load.workload import Workload
from vllm_sarathi.simulator.machine.pipeline import Execution

NAN = float("nan")
# Two gaps that differ by less than this share of themselves count as equal.
RESOLUTION = 0.0005
_BIN = log(1 + RESOLUTION)
# How often a run says how far it is: some ten times a second.
STEPS_BETWEEN_PROGRESS = 256


class Gaps:
    """Times between tokens, counted in logarithmic bins. Tokens that come together are one.

    Memory does not grow with their number; percentiles are exact to ``RESOLUTION``.
    """

    def __init__(self) -> None:
        self.num = 0
        self.max_s: float | None = None
        self._counts: Counter[int] = Counter()

    def add(self, gap_s: float, num: int = 1) -> None:
        """Count a gap so many times."""
        self.num += num
        if self.max_s is None or gap_s > self.max_s:
            self.max_s = gap_s
        self._counts[round(log(gap_s) / _BIN) if gap_s > 0 else -(1 << 30)] += num

    def percentile(self, percent: float) -> float | None:
        """The gap that so many percent do not exceed; None without gaps."""
        wanted, seen = self.num * percent / 100, 0
        for index, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return self._middle(index)
        return self.max_s

    @property
    def moments(self) -> tuple[float, float] | None:
        """Mean and standard deviation; None without gaps."""
        if not self.num:
            return None
        counted = [(self._middle(index), count) for index, count in self._counts.items()]
        mean_s = sum(gap_s * count for gap_s, count in counted) / self.num
        variance = sum((gap_s - mean_s) ** 2 * count for gap_s, count in counted) / self.num
        return mean_s, sqrt(variance)

    def cdf(self) -> list[tuple[float, float]]:
        """(gap, share of gaps no longer than it), rising."""
        seen, points = 0, []
        for index, count in sorted(self._counts.items()):
            seen += count
            points.append((self._middle(index), seen / self.num))
        return points

    def _middle(self, index: int) -> float:
        return min(exp(index * _BIN), self.max_s or 0.0)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a run has already failed its objectives, so that no more is needed.

    Args:
        tbt_s: limit for the P99 time between tokens.
        scheduling_delay_s: limit for the median delay before a request is scheduled.
        ttft_s: limit for the P99 time to first token.
        tpot_s: limit for the P99 of the requests' mean times per token.
        goodput: share of requests that must meet ``objectives``.
        objectives: of every request; None takes each class's own.
    """

    tbt_s: float | None = None
    scheduling_delay_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    goodput: float | None = None
    objectives: Objectives | None = None

    def misses(self, times: RequestTimes, own: Objectives) -> tuple[bool, bool, bool]:
        """Whether a request that is done misses the TTFT, the TPOT, its objectives."""
        ttft_s, tpot_s = times.ttft_s, times.tpot_s
        return (
            self.ttft_s is not None and ttft_s is not None and ttft_s > self.ttft_s,
            self.tpot_s is not None and tpot_s is not None and tpot_s > self.tpot_s,
            self.goodput is not None and not times.meets(self.objectives or own),
        )

    def most_misses(self, num_requests: int) -> tuple[int, int, int]:
        """How many requests may miss each of these."""
        # So many are above the 99th percentile wherever it falls between two of them.
        above = num_requests - floor(0.99 * (num_requests - 1)) - 1
        share = self.goodput or 0.0
        late = floor(num_requests * (1 - share)) + 1  # at most one too many, whatever rounding
        while late and (num_requests - late) / num_requests < share:
            late -= 1
        return above, above, late


@dataclass(slots=True)
class StepHistory:
    """Every step of a run, as parallel arrays; for pictures."""

    scheduled_s: "array[float]" = field(default_factory=lambda: array("d"))
    num_prefill: "array[int]" = field(default_factory=lambda: array("l"))
    num_decode: "array[int]" = field(default_factory=lambda: array("l"))
    stages: list[tuple[tuple[float, float], ...]] = field(default_factory=list)


class Recorder:
    """Keeps a few numbers for each request and each step; forgets tokens once counted.

    Args:
        workload: what is being run.
        stop_rule: when to stop early; None never.
        steps: where to keep every step; None keeps none.
        on_progress: told the share of all output tokens that have come, now and then.
    """

    def __init__(
        self,
        workload: Workload,
        stop_rule: StopRule | None,
        steps: StepHistory | None,
        on_progress: Callable[[float], object] | None = None,
    ) -> None:
        num = len(workload)
        self.workload = workload
        self.steps = steps
        self.gaps = Gaps()
        self.num_steps = self.num_tokens = self.num_output_tokens = self.num_preemptions = 0
        self.delay_s, self.ttft_s, self.e2e_s, self.tpot_s, self.max_gap_s, self.fluidity = (
            array("d", [NAN]) * num for _ in range(6)
        )
        self._times: dict[str, list[float]] = {}
        self._arrivals: list[float] = workload.arrival_s.tolist()
        self._rule = stop_rule or StopRule()
        self._num_late_gaps = self._num_late_starts = 0
        self._num_misses, self._most_misses = [0, 0, 0], self._rule.most_misses(num)
        self._most_late_gaps = 0.01 * float((workload.lengths.num_output - 1).sum())
        self._on_progress = on_progress
        self._num_expected, self._num_gapless = int(workload.lengths.num_output.sum()), 0
        self._first_s: float | None = None
        self.last_s = 0.0
        self.stage_span_s: tuple[float, float] | None = None

    def scheduled(self, now_s: float, output: Any, run: Execution) -> None:
        """Note a batch that was sent off."""
        if not run.num_tokens:
            return
        self.num_steps += 1
        self.num_tokens += run.num_tokens
        if self._on_progress is not None and self.num_steps % STEPS_BETWEEN_PROGRESS == 0:
            self._on_progress((self._num_gapless + self.gaps.num) / self._num_expected)
        if output.preempted_req_ids:
            self.num_preemptions += len(output.preempted_req_ids)
        for new in output.scheduled_new_reqs:
            self._note_start(int(new.req_id), now_s)
        first_s, last_s = self.stage_span_s or run.stages[0]
        self.stage_span_s = min(first_s, run.stages[0][0]), max(last_s, run.stages[-1][1])
        if self.steps is not None:
            drafts = output.scheduled_spec_decode_tokens
            scheduled = output.num_scheduled_tokens.items()
            decodes = [num for name, num in scheduled if num == 1 or name in drafts]
            self.steps.scheduled_s.append(now_s)
            self.steps.num_decode.append(len(decodes))
            self.steps.num_prefill.append(run.num_tokens - sum(decodes))
            self.steps.stages.append(run.stages)

    def _note_start(self, index: int, now_s: float) -> None:
        if self.delay_s[index] == self.delay_s[index]:
            return  # it was preempted and comes back
        self.delay_s[index] = now_s - self._arrivals[index]
        limit_s = self._rule.scheduling_delay_s
        if limit_s is not None and self.delay_s[index] > limit_s:
            self._num_late_starts += 1

    def answered(self, now_s: float, outputs: Any) -> None:
        """Note the tokens that came back.

        Tokens of a request that come together end one gap, as vLLM's metrics and its client count
        ITL. TPOT is over all tokens.
        """
        gaps: Counter[float] = Counter()
        times = self._times
        for group in outputs.values():
            for answer in group.outputs:
                name = answer.request_id
                seen = times.get(name)
                if seen is None:
                    times[name] = seen = [now_s]
                    self._num_gapless += 1
                else:
                    gaps[now_s - seen[-1]] += 1
                    seen.append(now_s)
                num_more = len(answer.new_token_ids) - 1
                if num_more > 0:
                    seen += [now_s] * num_more
                    self._num_gapless += num_more
                if answer.finish_reason is not None:
                    self._finish(int(name), times.pop(name))
        self.last_s = max(self.last_s, now_s)
        for gap_s, num in gaps.items():
            self._add_gap(gap_s, num)

    def last_token_s(self, names: list[str]) -> float | None:
        """When all of these requests got their last token; None if at different times."""
        seen = {self._times[name][-1] if name in self._times else None for name in names}
        return seen.pop() if len(seen) == 1 else None

    def answered_alike(self, names: list[str], times_s: list[float]) -> None:
        """Note one token of each of these requests at each of these times."""
        if not times_s:
            return
        for earlier_s, later_s in pairwise([self._times[names[0]][-1], *times_s]):
            self._add_gap(later_s - earlier_s, len(names))
        for name in names:
            self._times[name] += times_s
        self.last_s = max(self.last_s, times_s[-1])

    def _add_gap(self, gap_s: float, num: int) -> None:
        self.gaps.add(gap_s, num)
        limit_s = self._rule.tbt_s
        if limit_s is not None and gap_s > limit_s:
            self._num_late_gaps += num

    def _finish(self, index: int, token_times_s: list[float]) -> None:
        times = RequestTimes(self._arrivals[index], token_times_s)
        self.ttft_s[index] = token_times_s[0] - times.arrival_s
        self.e2e_s[index] = token_times_s[-1] - times.arrival_s
        self.num_output_tokens += len(token_times_s)
        if len(token_times_s) > 1:
            self.tpot_s[index] = times.tpot_s or 0.0
            self.max_gap_s[index] = max(b - a for a, b in pairwise(token_times_s))
        asked = self.workload.classes[int(self.workload.class_of[index])].objectives
        for kind, missed in enumerate(self._rule.misses(times, asked)):
            self._num_misses[kind] += missed
        if asked.ttft_s is not None and asked.tbt_s is not None:
            self.fluidity[index] = times.fluidity(asked.ttft_s, asked.tbt_s) or 0.0

    def should_stop(self, now_s: float) -> bool:
        """Whether an objective is already missed, whatever comes."""
        rule = self._rule
        if rule.tbt_s is not None and self._num_late_gaps > self._most_late_gaps:
            return True
        if any(map(gt, self._num_misses, self._most_misses)):
            return True
        return (
            rule.scheduling_delay_s is not None and self._num_late_starts > len(self._arrivals) / 2
        )
