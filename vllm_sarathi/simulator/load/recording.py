"""What a live server was asked, read from its step log."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vllm_sarathi.latency import Objectives
from vllm_sarathi.report.lines import Begin, EndedRequest, Step, StepLogFile
from vllm_sarathi.simulator.load.workload import Lengths, QosClass, Workload


@dataclass(slots=True)
class Recording:
    """The last run in a step log: a server that starts anew appends to it.

    Attributes:
        name: what reports call it.
        begin: what it was recorded with; defaults where the file lacks its beginning.
        is_whole: whether the file has its beginning.
        num_runs: runs in the file.
        steps: its steps.
        requests: those that came and ended in it, by arrival.
        num_running_before: requests left out that had come before its first step.
        num_unfinished: requests left out that had not ended with its last step, or were aborted
            before their first token.
        num_shed: requests left out that the server refused.
    """

    name: str
    begin: Begin
    is_whole: bool = False
    num_runs: int = 1
    steps: list[Step] = field(default_factory=list)
    requests: list[EndedRequest] = field(default_factory=list)
    num_running_before: int = 0
    num_unfinished: int = 0
    num_shed: int = 0

    def workload(self) -> Workload:
        """Its requests as they came, each with the objectives of its class.

        Prompt tokens that the prefix cache held are left out: nothing says which prompts
        shared them.
        """
        names = sorted({one.qos for one in self.requests})
        arrival_s = np.array([one.arrived_s for one in self.requests])
        return Workload(
            self.name,
            arrival_s - arrival_s[0],
            Lengths(
                np.array([self._num_prompt(one) for one in self.requests], np.int64),
                np.array([one.num_output_tokens for one in self.requests], np.int64),
            ),
            tuple(self._class(name) for name in names),
            np.array([names.index(one.qos) for one in self.requests], np.int64),
        )

    @staticmethod
    def _num_prompt(request: EndedRequest) -> int:
        return max(1, request.num_prompt_tokens - request.num_cached_tokens)

    def _class(self, name: str) -> QosClass:
        asked = self.begin.classes.get(name, {})
        kinds = {kind: limit_s for kind, limit_s in asked.items() if kind != "max_stall_s"}
        return QosClass(name, Objectives(**kinds), extra_args={"qos": name})

    @property
    def cached_share(self) -> float:
        """Share of prompt tokens that the prefix cache held."""
        num_cached = sum(one.num_cached_tokens for one in self.requests)
        return num_cached / sum(one.num_prompt_tokens for one in self.requests)

    @property
    def num_aborted(self) -> int:
        """Requests that their clients gave up: they are replayed with the tokens that they got."""
        return sum(one.was_aborted for one in self.requests)


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
            found.steps.append(step)
    found.num_runs = num_runs
    _gather(found)
    if not found.requests:
        raise ValueError(
            f"step log {str(path)!r} holds no request that came and ended while it was written; "
            "record some with --sarathi-step-log FILE (with --sarathi-preset observe vLLM goes on "
            "deciding)"
        )
    return found


def _gather(found: Recording) -> None:
    """Choose the requests that can be replayed, and count the others."""
    if not found.steps:
        return
    first, *later = found.steps
    ended = [one for step in found.steps for one in step.requests]
    # Before the first step of a whole run nothing runs: what it serves came before it.
    begin_s = 0.0 if found.is_whole else first.ended_s - (first.duration_s or 0.0)
    found.requests = sorted(
        (one for one in ended if one.arrived_s >= begin_s), key=lambda one: one.arrived_s
    )
    found.num_running_before = len(ended) - len(found.requests)
    started = first.num_running + sum(step.num_admitted - step.num_preempted for step in later)
    num_left = started - len(ended) + found.steps[-1].num_waiting
    found.num_unfinished = max(0, num_left)
    found.num_shed = sum(sum(step.shed.values()) for step in found.steps)
