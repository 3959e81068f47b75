"""How long one pipeline stage takes for one batch, and what surrounds it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from vllm_sarathi.policy.step_time import StepWork

ROWS = ("token_points", "windowed")  # fields of a ``StepCost`` that JSON turns into lists


@dataclass(frozen=True)
class StepCost:
    """Step time of one stage: tokens through a table with cliffs, plus attention.

    time = table(num_tokens) + chunk_context x a + decode_context x b + num_sampled x c

    Layers with a sliding window have an a and b of their own, and at most a window of
    context for each token. A batch says its context in all, not each request's. So long
    contexts beside short ones count for more than they cost, never for less.

    The table is linear between its points; a tile cliff is two points one token
    apart. It starts flat (weights are read whatever the batch) and goes on beyond
    its last point at the time per token of that point.

    Args:
        token_points: (number of tokens, seconds), tokens rising; at least two.
        chunk_context_s: seconds per query-key pair of a prefill chunk.
        decode_context_s: seconds per token of context that a decode reads.
        sampled_s: seconds per token sampled.
        windowed: (window, chunk_context_s, decode_context_s) of layers with a window.

    Raises:
        ValueError: the tokens do not rise, or a cost is negative.
    """

    token_points: tuple[tuple[int, float], ...]
    chunk_context_s: float
    decode_context_s: float
    sampled_s: float = 0.0
    windowed: tuple[tuple[int, float, float], ...] = ()

    def __post_init__(self) -> None:
        points = self.token_points
        rising = all(a[0] < b[0] for a, b in pairwise(points))
        if len(points) < 2 or not rising or points[0][0] < 0 or any(p[1] < 0 for p in points):
            raise ValueError(
                f"token_points={points!r} must be two or more points with rising tokens "
                "and times of 0 or more"
            )
        for name in ("chunk_context_s", "decode_context_s", "sampled_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 0 or more")

    @cached_property
    def _table(self) -> list[float]:
        tokens, times = zip(*self.token_points, strict=True)
        return [float(t) for t in np.interp(range(tokens[-1] + 1), tokens, times)]

    def tokens_s(self, num_tokens: int) -> float:
        """Seconds that so many tokens take before attention."""
        last = len(self._table) - 1
        if num_tokens <= last:
            return self._table[num_tokens]
        return self._table[last] * num_tokens / last

    def step_s(self, work: StepWork, num_sampled: int) -> float:
        """Seconds that a batch takes in which so many requests get a token. O(1)."""
        step_s = (
            self.tokens_s(work.num_tokens)
            + work.chunk_context * self.chunk_context_s
            + work.decode_context * self.decode_context_s
            + num_sampled * self.sampled_s
        )
        for window, chunk_context_s, decode_context_s in self.windowed:
            step_s += min(work.chunk_context, work.num_tokens * window) * chunk_context_s
            step_s += min(work.decode_context, num_sampled * window) * decode_context_s
        return step_s


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time on the CPU around a step, in seconds.

    Args:
        schedule_s: engine core, before a batch is sent off: ``schedule()`` and sending.
        schedule_request_s: as above, for each request in the batch.
        update_s: engine core, after a batch is back: ``update_from_output()`` and output.
        update_request_s: as above, for each request in the batch.
        prepare_s: worker, preparing a batch's inputs; overlaps the batch before
            where more than one is in flight.
    """

    schedule_s: float = 0.0
    schedule_request_s: float = 0.0
    update_s: float = 0.0
    update_request_s: float = 0.0
    prepare_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on a machine, as the simulator sees it.

    Args:
        name: what reports call it.
        stages: cost of each pipeline stage, first to last.
        num_kv_tokens: tokens that the KV cache holds, were none of them behind a window.
        max_model_len: longest prompt plus output, in tokens.
        send_s: seconds to start sending activations to the next stage.
        send_token_s: as above, for each token of the batch.
        overhead: CPU time around a step.
        kv_windows: sliding window of each group of layers in the KV cache; None where it
            keeps every token.
        source: where the numbers are from.
        largest_step: the most of everything in any step that the cost was fitted to; what
            goes beyond is extrapolated. None where the cost follows from hardware.
    """

    name: str
    stages: tuple[StepCost, ...]
    num_kv_tokens: int
    max_model_len: int
    send_s: float = 0.0
    send_token_s: float = 0.0
    overhead: Overhead = Overhead()
    kv_windows: tuple[int | None, ...] = (None,)
    source: str = ""
    largest_step: StepWork | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages=() must hold the cost of at least one stage")
        for name in ("num_kv_tokens", "max_model_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 1 or more")

    def to_json(self) -> dict[str, Any]:
        """A mapping that ``from_json`` reads."""
        largest = None if self.largest_step is None else self.largest_step._asdict()
        return {**asdict(self), "largest_step": largest}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Deployment":
        """Read a deployment that ``to_json`` wrote; ``calibrate`` adds where it is from."""
        fields = {name: value for name, value in fields.items() if name != "provenance"}
        stages = tuple(
            StepCost(**{**stage, **{name: tuple(map(tuple, stage.get(name, ()))) for name in ROWS}})
            for stage in fields["stages"]
        )
        overhead = Overhead(**fields.get("overhead", {}))
        windows = tuple(fields.get("kv_windows", (None,)))
        largest = fields.get("largest_step")
        largest = None if largest is None else StepWork(**largest)
        read = {"stages": stages, "overhead": overhead, "kv_windows": windows}
        return cls(**{**fields, **read, "largest_step": largest})


def check_kv_tokens(num_kv_tokens: int, max_model_len: int) -> None:
    """Refuse a KV cache that cannot hold the longest request, as vLLM does.

    Raises:
        ValueError: names both.
    """
    if num_kv_tokens < max_model_len:
        raise ValueError(
            f"num_kv_tokens={num_kv_tokens} must be at least max_model_len={max_model_len}: vLLM "
            "refuses to start otherwise (its log says 'GPU KV cache size: ... tokens')"
        )
