"""Requests that run together share every step: one more lengthens the time per token of all.

A prompt that must be computed slows the admission of others by its own prefill. A context in the
prefix cache does not, yet every step reads it: admitted without limit, such contexts would leave
steps no time for the prefill of others. So one joins only if a step has time for the prefill that
it was spared as well, spread over the steps in which it decodes. The requests that follow those
that run bring no more than their mean prefill each in that time, so that is the most.
"""

from typing import NamedTuple

from vllm_sarathi.policy.step_time import StepTimeModel, StepWork


class Company(NamedTuple):
    """What those that run together will share, for who asks whether one more may join.

    Attributes:
        num_running: requests that run.
        context_tokens: sum of the contexts that they read, on average of their life.
        mean_output: output tokens of a request, on average.
        pace_s: the tightest pace among them, in seconds a step.
        least_pace_s: tighter ones count as this, in seconds a step.
        is_outranked: whether the first that waits is more important than one of them.
        tokens_each: tokens of each in a step, drafts included.
        mean_prefill: prefill tokens of a request that may follow, on average.
        mean_steps: steps in which a request decodes, on average, at least 1.
        num_prefill_tokens: prefill tokens for which a step must have time besides, for the sake of
            the last that joined.
    """

    num_running: int
    context_tokens: float
    mean_output: float
    pace_s: float
    least_pace_s: float = 0.0
    is_outranked: bool = False
    tokens_each: int = 1
    mean_prefill: float = 0.0
    mean_steps: float = 1.0
    num_prefill_tokens: float = 0.0

    @property
    def admits_any(self) -> bool:
        """Whether the first that waits joins whatever the pace.

        It does if nobody runs, or if it is more important than one that does: while its prefill
        lasts others end, and the pace keeps others out until it holds again.
        """
        return self.is_outranked or not self.num_running

    def joined_by(self, num_prompt: int, pace_s: float, num_spared: int = 0) -> "Company":
        """The same with one more request.

        Args:
            num_prompt: tokens of its prompt.
            pace_s: the pace that it was promised, in seconds a step.
            num_spared: tokens of its prompt that need no prefill; 0 once it has begun.
        """
        most = self.num_running * self.mean_prefill
        return self._replace(
            num_running=self.num_running + 1,
            context_tokens=self.context_tokens + mean_context(num_prompt, 0, self.mean_output),
            pace_s=min(self.pace_s, max(pace_s, self.least_pace_s)),
            is_outranked=False,
            num_prefill_tokens=min(num_spared, most) / self.mean_steps,
        )

    def keeps_pace(self, model: StepTimeModel, num_stages: int = 1) -> bool:
        """Whether a decode step of all is predicted to fit the tightest pace, with that prefill."""
        num_tokens = -(-self.num_running // num_stages) * self.tokens_each
        num_tokens += round(self.num_prefill_tokens / num_stages)
        context = round(self.context_tokens / num_stages)
        share = StepWork(num_tokens, 0.0, context)
        return num_stages * model.predict(share) <= self.pace_s


def mean_context(num_prompt: int, num_computed: int, mean_output: float) -> float:
    """Context that a request reads over its life, on average, or reads now if that is more."""
    return max(num_computed, num_prompt + mean_output / 2)
