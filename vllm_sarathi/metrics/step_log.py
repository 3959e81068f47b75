"""The step log: a JSON line for each step."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from vllm.logger import init_logger

from vllm_sarathi.policy.step import BatchLimit
from vllm_sarathi.policy.step_time import StepWork

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

_ALLOWED = "allowed is a file in a folder that exists"


class StepLog:
    """Appends lines to a file that only its user may read.

    A disk that is full ends the log, not the engine.

    Args:
        path: the file.

    Raises:
        ValueError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file: TextIO | None = os.fdopen(descriptor, "a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"sarathi setting step_log={str(path)!r} cannot be written: {error}; {_ALLOWED}"
            ) from error

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            logger.warning("the step log ends here: %s", error)
            self._file = None


def own_path(path: Path, rank: int, num_engines: int) -> Path:
    """The step log of one engine: with data parallelism its rank is part of the name."""
    return path if num_engines == 1 else path.with_name(f"{path.stem}.{rank}{path.suffix}")


def check_writable(path: str) -> None:
    """Refuse a path that cannot become a step log. Writes nothing.

    Raises:
        ValueError: names the path and what is allowed.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        fault = "it is a folder"
    elif not os.path.isdir(folder):
        fault = f"{folder!r} is not a folder"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        fault = "permission denied"
    else:
        return
    raise ValueError(f"sarathi setting step_log={path!r} cannot be written: {fault}; {_ALLOWED}")


@dataclass(frozen=True, slots=True)
class EngineState:
    """The engine as a step was scheduled: only the step log asks.

    Attributes:
        scheduled_s: when that was, in seconds since the epoch.
        num_in_flight: steps in flight, this one included.
        num_running: requests that run.
        num_waiting: requests that wait.
        num_aside: those of them that stepped aside, or have no time to keep.
        num_admitted: requests that began to run with the step.
        num_preempted: requests that stopped running with it.
        kv_usage: share of the KV blocks in use.
    """

    scheduled_s: float
    num_in_flight: int
    num_running: int
    num_waiting: int
    num_aside: int
    num_admitted: int
    num_preempted: int
    kv_usage: float


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """What vLLM made of a plan.

    Attributes:
        work: what of the batch decides its duration.
        num_decodes: decodes in it.
        num_prefill_tokens: prefill tokens in it.
        token_budget: tokens that it might have held.
        limit: what kept it from being larger.
        num_decodes_paused: ready decodes that sat it out.
        predicted_s: expected duration.
        objective_s: objective for gaps between tokens, or None.
        admission_blocked_by: why no waiting request was admitted though fewer than max_num_seqs
            ran, or None.
        engine: what the engine was like; None without a step log.
    """

    work: StepWork
    num_decodes: int
    num_prefill_tokens: int
    token_budget: int
    limit: str
    num_decodes_paused: int
    predicted_s: float
    objective_s: float | None
    admission_blocked_by: str | None
    engine: EngineState | None = None

    def line(self) -> dict[str, Any]:
        """Its part of a line of the step log."""
        # dataclasses.asdict copies every value, which takes longer than all else of a line.
        line = {name: getattr(self, name) for name in _STEP_FIELDS}
        line["work"] = self.work._asdict()
        if self.engine is not None:
            line |= {name: getattr(self.engine, name) for name in _ENGINE_FIELDS}
        return line

    @property
    def num_decode_tokens(self) -> int:
        """Tokens of the decodes in it."""
        return self.work.num_tokens - self.num_prefill_tokens

    @property
    def is_full(self) -> bool:
        """Whether there was more to do than it held; of a step of vLLM's own nobody knows."""
        return self.limit not in (BatchLimit.NO_MORE_PREFILL.value, BatchLimit.VLLM.value)


_ENGINE_FIELDS = tuple(each.name for each in fields(EngineState))
_STEP_FIELDS = tuple(each.name for each in fields(ScheduledStep) if each.name != "engine")
