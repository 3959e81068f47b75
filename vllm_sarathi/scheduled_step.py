"""What is remembered of a step until its result is there."""

from dataclasses import dataclass

from vllm_sarathi.step_time import StepWork


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """What vLLM made of a plan.

    Attributes:
        work: what of the batch decides its duration.
        num_decodes: decodes in it.
        num_prefill_tokens: prefill tokens in it.
        token_budget: tokens that it might have held.
        limit: what kept it from being larger.
        num_decodes_waiting: ready decodes that sat it out.
        predicted_s: expected duration.
        objective_s: objective for gaps between tokens, or None.
        arrivals_s: arrival of the requests whose first token it brings, in
            seconds since the epoch.
    """

    work: StepWork
    num_decodes: int
    num_prefill_tokens: int
    token_budget: int
    limit: str
    num_decodes_waiting: int
    predicted_s: float
    objective_s: float | None
    arrivals_s: tuple[float, ...]
