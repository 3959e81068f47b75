"""A deployment fitted to the steps that a live server recorded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.report.lines import Begin, StepLogFile
from vllm_sarathi.simulator.machine.step_cost import Deployment, StepCost

FEWEST_STEPS = 50
# Knots of the token table, so many times a power of two; only those that data reaches.
KNOTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
# Steps outside these quantiles of error are left out of the second fit: compiles, pauses.
TRIM = (0.01, 0.99)

Matrix = npt.NDArray[np.float64]


class Step(NamedTuple):
    """One recorded step."""

    work: StepWork
    duration_s: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted cost and how far it is from what was recorded.

    Args:
        cost: the step's cost.
        num_steps: steps it was fitted to.
        error_p50: median of the relative error of a step.
        error_p90: its 90th percentile.
        bias: total predicted time over total recorded time, less 1.
        largest_step: the most tokens, and the most of both contexts, in any step.
    """

    cost: StepCost
    num_steps: int
    error_p50: float
    error_p90: float
    bias: float
    largest_step: StepWork

    def deployment(
        self,
        name: str,
        num_kv_tokens: int,
        max_model_len: int,
        kv_windows: tuple[int | None, ...] = (None,),
    ) -> Deployment:
        """A deployment of one stage. CPU time is part of the recorded durations already."""
        return Deployment(
            name,
            (self.cost,),
            num_kv_tokens,
            max_model_len,
            kv_windows=kv_windows,
            source=f"calibrated on {self.num_steps} steps",
            largest_step=self.largest_step,
        )

    def figures(self) -> dict[str, Any]:
        """The fit, ready for JSON."""
        largest = self.largest_step
        has_1024 = largest.num_tokens >= 1024
        return {
            "steps": self.num_steps,
            "most_tokens": largest.num_tokens,
            "most_query_key_pairs": largest.chunk_context,
            "most_decode_context": largest.decode_context,
            "error_p50": self.error_p50,
            "error_p90": self.error_p90,
            "bias": self.bias,
            "one_token_ms": self.cost.tokens_s(1) * 1e3,
            "ms_per_token_of_1024": self.cost.tokens_s(1024) / 1.024 if has_1024 else None,
            "us_per_1000_query_key_pairs": self.cost.chunk_context_s * 1e9,
            "us_per_1000_decode_context": self.cost.decode_context_s * 1e9,
        }


def read_begin(path: str | Path) -> Begin:
    """What the last run in a step log was recorded with; defaults where it does not say.

    Raises:
        ValueError: the file cannot be read.
    """
    begins = [step.begin for step in StepLogFile(Path(path)) if step.begin is not None]
    return begins[-1] if begins else Begin()


def read_steps(path: str | Path) -> list[Step]:
    """Read the steps that ``--sarathi-step-log FILE`` wrote. Steps without a duration are skipped.

    Raises:
        ValueError: names the line and what is wrong with it.
    """
    steps = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"steps {str(path)!r} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            if "fault" in fields or "begin" in fields:
                continue
            work, duration_s = fields["work"], fields["duration_s"]
            if duration_s is None:
                continue
            sizes = StepWork(work["num_tokens"], work["chunk_context"], work["decode_context"])
            if not all(isfinite(value) for value in (*sizes, duration_s)):
                raise ValueError("numbers must be finite")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"steps {str(path)!r} line {number} is not a step: {error!r}"
            ) from error
        if duration_s > 0 and sizes.num_tokens > 0:
            steps.append(Step(sizes, duration_s))
    return steps


def fit(steps: Sequence[Step]) -> Fit:
    """Fit a step cost by non-negative least squares of the *relative* error.

    The table of tokens is a sum of hinges, so time never falls as tokens rise. A second
    fit leaves out the steps that the first finds far off.

    Raises:
        ValueError: there are too few steps.
    """
    if len(steps) < FEWEST_STEPS:
        raise ValueError(f"{len(steps)} steps are too few to fit; record {FEWEST_STEPS} or more")
    data = np.array([(*step.work, step.duration_s) for step in steps], float)
    cost = _fit_once(data)
    error = _relative_error(cost, data)
    low, high = np.quantile(error, TRIM)
    cost = _fit_once(data[(error >= low) & (error <= high)])
    error = _relative_error(cost, data)
    size = np.abs(error)
    total_s = float(data[:, 3].sum())
    return Fit(
        cost,
        len(steps),
        float(np.median(size)),
        float(np.quantile(size, 0.9)),
        float((error * data[:, 3]).sum()) / total_s,
        StepWork(*(max(amounts) for amounts in zip(*(step.work for step in steps), strict=True))),
    )


def _fit_once(data: Matrix) -> StepCost:
    num_tokens, duration_s = data[:, 0], data[:, 3]
    knots = [k for k in KNOTS if k == 0 or k < num_tokens.max()]
    hinges = [np.maximum(0.0, num_tokens - knot) for knot in knots]
    columns = np.stack([np.ones(len(data)), *hinges, data[:, 1], data[:, 2]], axis=1)
    # Convex hinges cannot bend down: saturating ones can, and both only rise.
    caps = [np.minimum(num_tokens, knot) for knot in knots[1:]]
    columns = np.concatenate([columns, np.stack(caps, axis=1)], axis=1) if caps else columns
    scale = columns.max(axis=0)
    scale[scale == 0] = 1.0
    weighted = columns / scale / duration_s[:, None]
    solution = nnls(weighted, np.ones(len(data)))[0] / scale
    base, slopes = solution[0], solution[1 : 1 + len(knots)]
    chunk_s, decode_s = solution[1 + len(knots) : 3 + len(knots)]
    saturating = solution[3 + len(knots) :]

    def table_s(tokens: int) -> float:
        rising = sum(s * max(0, tokens - k) for s, k in zip(slopes, knots, strict=True))
        capped = sum(s * min(tokens, k) for s, k in zip(saturating, knots[1:], strict=True))
        return float(base + rising + capped)

    last = max(int(num_tokens.max()), knots[-1] + 1)
    points = tuple((tokens, table_s(tokens)) for tokens in (*knots, last))
    return StepCost(points, float(chunk_s), float(decode_s))


def _relative_error(cost: StepCost, data: Matrix) -> Matrix:
    tokens_s = np.array([cost.tokens_s(int(n)) for n in data[:, 0]])
    predicted_s = tokens_s + data[:, 1] * cost.chunk_context_s + data[:, 2] * cost.decode_context_s
    return np.asarray(predicted_s / data[:, 3] - 1)
