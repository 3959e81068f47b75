"""Reads the lines of a step log."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

# A number out of these bounds is no measurement.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Epoch = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Work(msgspec.Struct):
    """What of a batch decides its duration."""

    num_tokens: Count = 0
    chunk_context: float = 0.0
    decode_context: float = 0.0


class Waits(msgspec.Struct):
    """Waits for tokens of one class that ended with a step."""

    num: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    mean_s: Seconds
    longest_s: Seconds
    request_id: str = ""
    objective_s: Seconds | None = None
    num_late: Count = 0
    was_preempted: bool = False


class EndedRequest(msgspec.Struct):
    """A request that ended with a step, or was aborted since the step before."""

    arrived_s: Epoch
    num_prompt_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    num_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    ttft_s: Seconds
    e2e_s: Seconds
    longest_gap_s: Seconds = 0.0
    num_cached_tokens: Count = 0
    qos: str = "default"
    priority: Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] = 0
    was_aborted: bool = False


class Begin(msgspec.Struct):
    """What the steps after it were recorded with."""

    num_stages: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    max_num_batched_tokens: Count | None = None
    max_num_seqs: Count | None = None
    async_scheduling: bool = False
    long_prefill_token_threshold: Count = 0
    policy: str = "fcfs"
    num_spec_tokens: Count = 0
    v2_model_runner: bool = True
    max_model_len: Count | None = None
    block_size: Count = 16
    num_kv_tokens: Count | None = None
    kv_windows: tuple[Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None, ...] = (None,)
    settings: dict[str, Any] = {}
    classes: dict[str, dict[str, Seconds]] = {}

    @property
    def in_flight_tokens(self) -> int:
        """Most tokens scheduled and not yet back; 0 where it is not said."""
        return (self.num_stages + self.async_scheduling) * (self.max_num_batched_tokens or 0)


class Step(msgspec.Struct):
    """A step.

    ``begin`` and ``fault`` are lines of another kind, which have nothing else: for them all has a
    default.
    """

    begin: Begin | None = None
    fault: str | None = None
    error: str = ""
    work: Work | None = None
    num_decodes: Count = 0
    num_prefill_tokens: Count = 0
    token_budget: Count = 0
    limit: str = ""
    num_decodes_paused: Count = 0
    predicted_s: Seconds = 0.0
    objective_s: Seconds | None = None
    admission_blocked_by: str | None = None
    duration_s: Seconds | None = None
    ended_s: Epoch = 0.0
    between_s: Seconds = 0.0
    num_in_flight: Count = 1
    num_running: Count = 0
    num_waiting: Count = 0
    num_aside: Count = 0
    num_admitted: Count = 0
    num_preempted: Count = 0
    kv_usage: Share = 0.0
    stage_idle_share: Share | None = None
    relegated: dict[str, Count] = {}
    shed: dict[str, Count] = {}
    gaps: dict[str, Waits] = {}
    first_tokens: dict[str, Waits] = {}
    requests: list[EndedRequest] = []


@dataclass(slots=True)
class StepLogFile:
    """A step log, read line by line.

    Attributes:
        path: the file.
        num_lines: lines read so far.
        num_bad: lines that are none of a step log.
        first_bad: number of the first of them.
        is_cut_off: whether the last line has no end.
    """

    path: Path
    num_lines: int = 0
    num_bad: int = 0
    first_bad: int | None = None
    is_cut_off: bool = False
    _decoder: msgspec.json.Decoder[Step] = field(default_factory=lambda: msgspec.json.Decoder(Step))

    def __iter__(self) -> Iterator[Step]:
        """Its lines: those that cannot be read are counted, not returned.

        Raises:
            ValueError: the file cannot be read.
        """
        decode = self._decoder.decode
        try:
            with self.path.open("rb") as file:
                for line in file:
                    self.num_lines += 1
                    try:
                        step = decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        self._refuse(line)
                        continue
                    is_step = step.work is not None and step.ended_s > 0
                    if is_step or step.begin is not None or step.fault is not None:
                        yield step
                    else:
                        self._refuse(line)
        except OSError as error:
            raise ValueError(
                f"step log {str(self.path)!r} cannot be read: {error.strerror}; allowed is a file "
                "that --sarathi-step-log wrote"
            ) from error

    def _refuse(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            self.is_cut_off = True
            return
        self.num_bad += 1
        self.first_bad = self.first_bad or self.num_lines
