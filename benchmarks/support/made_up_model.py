"""What a model that takes no time answers to a batch of vLLM's scheduler."""

from typing import Any

from vllm_sarathi.simulator.engine.loop import model_runner_output


def answer_to(scheduler: Any, output: Any) -> Any:
    """The ``ModelRunnerOutput`` of a ``SchedulerOutput``: a token where the prefill is complete."""
    sampled = frozenset(
        name
        for name in output.num_scheduled_tokens
        if not scheduler.requests[name].is_prefill_chunk
    )
    return model_runner_output(output.num_scheduled_tokens, sampled)
