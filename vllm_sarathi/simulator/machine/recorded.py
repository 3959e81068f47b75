"""A deployment calibrated on the log that is to be replayed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vllm_sarathi.simulator.load.recording import Recording
from vllm_sarathi.simulator.machine.calibration import TRIM, Step, fit
from vllm_sarathi.simulator.machine.step_cost import Deployment, StepCost


class Calibrated(NamedTuple):
    """A deployment, and how much its steps vary.

    Args:
        deployment: what a step costs on average.
        noise: standard deviation of a step's time, as a share of it.
    """

    deployment: Deployment
    noise: float


def calibrated(recording: Recording) -> Calibrated:
    """The deployment that the recorded steps tell.

    Raises:
        ValueError: it is of a pipeline, lacks the size of the KV cache, or has too few steps.
    """
    begin, name = recording.begin, recording.name
    if begin.num_stages > 1:
        raise ValueError(
            f"step log {name!r} is of a pipeline of num_stages={begin.num_stages}, whose steps do "
            "not tell each stage's time; allowed is 1, or --deployment"
        )
    if begin.num_kv_tokens is None or begin.max_model_len is None:
        raise ValueError(
            f"step log {name!r} has num_kv_tokens={begin.num_kv_tokens} and max_model_len="
            f"{begin.max_model_len} at its beginning; both must be there, or --deployment given"
        )
    steps = [Step(work, cost_s) for work, cost_s in recording.costs if work.num_tokens and cost_s]
    fitted = fit(steps)
    bias, noise = _spread(fitted.cost, steps)
    found = replace(fitted, cost=_scaled(fitted.cost, bias)).deployment(
        name, begin.num_kv_tokens, begin.max_model_len, begin.kv_windows
    )
    return Calibrated(replace(found, source=f"{found.source}, which vary by {noise:.0%}"), noise)


def _spread(cost: StepCost, steps: Sequence[Step]) -> tuple[float, float]:
    """What steps take on average over what a fit says, and their deviation as a share of that.

    A fit of relative errors leans to the fast ones among steps that hold the same. Outliers say
    nothing: compiles, pauses.
    """
    ratios = np.array([step.duration_s / cost.step_s(step.work, 0) for step in steps])
    took_s = np.array([step.duration_s for step in steps])
    low, high = np.quantile(ratios, TRIM)
    kept = (ratios >= low) & (ratios <= high)
    bias = float(took_s[kept].sum() / (took_s[kept] / ratios[kept]).sum())
    return bias, min(1.0, float((ratios[kept] / bias).std()))


def _scaled(cost: StepCost, factor: float) -> StepCost:
    return StepCost(
        tuple((num_tokens, time_s * factor) for num_tokens, time_s in cost.token_points),
        cost.chunk_context_s * factor,
        cost.decode_context_s * factor,
    )
