"""A deployment calibrated on the log that is to be replayed."""

from dataclasses import replace

from vllm_sarathi.simulator.load.recording import Recording
from vllm_sarathi.simulator.machine.step_cost import Deployment


def calibrated(recording: Recording) -> Deployment:
    """The deployment that the recorded steps tell.

    Raises:
        ValueError: it is of a pipeline, lacks the size of the KV cache, or has too few steps.
    """
    # Half a second, which a wrong argument need not wait for.
    from vllm_sarathi.simulator.machine.calibration import Step, fit

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
    found = fitted.deployment(name, begin.num_kv_tokens, begin.max_model_len)
    error = f"median error of a step {fitted.error_p50:.1%}, P90 {fitted.error_p90:.1%}"
    return replace(found, source=f"{found.source}: {error}")
