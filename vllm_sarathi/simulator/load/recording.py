"""What a live server was asked, and what came of it, read from its step log."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vllm_sarathi.latency import Objectives
from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.report.lines import Begin, EndedRequest, Step, StepLogFile, Waits
from vllm_sarathi.simulator.load.workload import Lengths, QosClass, Workload
from vllm_sarathi.simulator.results.recorder import Gaps


@dataclass(slots=True)
class Recording:
    """The last run in a step log: a server that starts anew appends to it.

    Attributes:
        name: what reports call it.
        begin: what it was recorded with; defaults where the file lacks its beginning.
        is_whole: whether the file has its beginning.
        num_runs: runs in the file.
        requests: those that came and ended in it, by arrival.
        num_running_before: requests left out that had come before its first step.
        num_shed: requests left out that the server refused.
        gaps: between tokens. A step's line has the longest and the mean: the others count as
            alike.
        costs: what each step held, and how long it took in seconds; 0 where nobody knows.
        first_s: when the first step began, since the epoch.
        last_s: when the last one ended.
        num_preemptions: requests put back for lack of KV memory.
    """

    name: str
    begin: Begin
    is_whole: bool = False
    num_runs: int = 1
    requests: list[EndedRequest] = field(default_factory=list)
    num_running_before: int = 0
    num_shed: int = 0
    gaps: Gaps = field(default_factory=Gaps)
    costs: list[tuple[StepWork, float]] = field(default_factory=list)
    first_s: float = 0.0
    last_s: float = 0.0
    num_preemptions: int = 0
    _num_started: int = 0
    _num_waiting: int = 0

    def add(self, step: Step) -> None:
        """Add a step."""
        work = step.work
        assert work is not None
        sizes = StepWork(work.num_tokens, work.chunk_context, int(work.decode_context))
        if not self.costs:
            self.first_s = step.ended_s - (step.duration_s or 0.0)
            self._num_started = step.num_running
        else:
            self._num_started += step.num_admitted - step.num_preempted
        self.costs.append((sizes, step.duration_s or 0.0))
        self.last_s, self._num_waiting = step.ended_s, step.num_waiting
        self.num_preemptions += step.num_preempted
        self.num_shed += sum(step.shed.values())
        for waits in step.gaps.values():
            self._add_gaps(waits)
        for request in step.requests:
            # Before the first step of a whole run nothing runs: what it serves came before it.
            if self.is_whole or request.arrived_s >= self.first_s:
                self.requests.append(request)
            else:
                self.num_running_before += 1

    def _add_gaps(self, waits: Waits) -> None:
        self.gaps.add(waits.longest_s)
        if waits.num > 1:
            others_s = (waits.num * waits.mean_s - waits.longest_s) / (waits.num - 1)
            self.gaps.add(max(0.0, others_s), waits.num - 1)

    @property
    def num_unfinished(self) -> int:
        """Requests that had not ended with the last step, or were aborted without a token."""
        num_ended = len(self.requests) + self.num_running_before
        return max(0, self._num_started - num_ended + self._num_waiting)

    @property
    def num_aborted(self) -> int:
        """Requests that their clients gave up: they are replayed with the tokens that they got."""
        return sum(one.was_aborted for one in self.requests)

    @property
    def cached_share(self) -> float:
        """Share of prompt tokens that the prefix cache held."""
        num_cached = sum(one.num_cached_tokens for one in self.requests)
        return num_cached / sum(one.num_prompt_tokens for one in self.requests)

    def workload(self) -> Workload:
        """Its requests as they came, each with the objectives of its class and its priority.

        Prompt tokens that the prefix cache held are left out: nothing says which prompts
        shared them.
        """
        kinds = sorted({(one.qos, one.priority) for one in self.requests})
        class_of = {kind: index for index, kind in enumerate(kinds)}
        arrival_s = np.array([one.arrived_s for one in self.requests])
        num_prompt = [one.num_prompt_tokens - one.num_cached_tokens for one in self.requests]
        return Workload(
            self.name,
            arrival_s - arrival_s[0],
            Lengths(
                np.maximum(1, np.array(num_prompt, np.int64)),
                np.array([one.num_output_tokens for one in self.requests], np.int64),
            ),
            tuple(self._class(*kind) for kind in kinds),
            np.array([class_of[one.qos, one.priority] for one in self.requests], np.int64),
        )

    def _class(self, name: str, priority: int) -> QosClass:
        asked = self.begin.classes.get(name, {})
        kinds = {kind: limit_s for kind, limit_s in asked.items() if kind != "max_stall_s"}
        return QosClass(name, Objectives(**kinds), priority, extra_args={"qos": name})


def read_recording(path: str | Path) -> Recording:
    """Read the last run in a step log.

    Raises:
        ValueError: the file cannot be read, or holds no request that ended.
    """
    path = Path(path)
    found, num_runs = Recording(path.stem, Begin()), 0
    begin: Begin | None = None
    for step in StepLogFile(path):
        if step.begin is not None:
            begin = step.begin
        elif step.work is not None:
            if begin is not None or not num_runs:
                num_runs += 1
                found = Recording(path.stem, begin or Begin(), is_whole=begin is not None)
                begin = None
            found.add(step)
    found.num_runs = num_runs
    found.requests.sort(key=lambda one: one.arrived_s)
    if not found.requests:
        raise ValueError(
            f"step log {str(path)!r} holds no request that came and ended while it was written; "
            "record some with --sarathi-step-log FILE (with --sarathi-preset observe vLLM goes on "
            "deciding)"
        )
    return found
