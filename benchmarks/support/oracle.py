"""A step-time model that knows the simulator's costs: what a learned one is held against."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from statistics import NormalDist
from unittest import mock

from vllm_sarathi.policy import presets
from vllm_sarathi.policy.step import BatchLimit, StepView
from vllm_sarathi.policy.step_time import ErrorQuantile, StepTimeModel, StepWork
from vllm_sarathi.policy.token_budget import SloTokenBudget
from vllm_sarathi.simulator import Deployment


@dataclass(kw_only=True)
class ExactStepTime(StepTimeModel):
    """Predicts by the cost model itself, and learns nothing.

    The cost counts sampled tokens too, which a ``StepWork`` does not: the requests tell them.

    Attributes:
        deployment: what steps cost; one stage.
        view: the requests that the next batch is chosen from.
    """

    deployment: Deployment
    view: StepView = field(default_factory=partial(StepView, 0))

    def predict(self, work: StepWork) -> float:
        """Duration of a step without noise, in seconds.

        Exact where all prefill is in view; waiting prompts beyond it are taken to sample nothing.
        """
        (stage,) = self.deployment.stages
        return stage.step_s(work, self._num_sampled(work))

    def has_seen(self, num_tokens: int) -> bool:
        """Nothing to try."""
        return True

    def observe(self, work: StepWork, duration_s: float) -> None:
        """Nothing to learn."""

    def _num_sampled(self, work: StepWork) -> int:
        """One token for each decode, if they are in the batch, and for each prompt it ends."""
        view = self.view if work.decode_context else self.view.without_decodes()
        prompts = (*view.prefills, *view.waiting[: view.max_new_prefills])
        num_prefill = work.num_tokens - view.num_decode_tokens
        ends = accumulate(prompt.num_tokens for prompt in prompts)
        return view.num_decodes + sum(end <= num_prefill for end in ends)


class ExactTokenBudget(SloTokenBudget):
    """Shows its model the requests before it asks."""

    def __call__(self, view: StepView) -> tuple[int, BatchLimit]:
        """Choose the batch size for these requests."""
        self.model.view = view
        return super().__call__(view)


@contextmanager
def exact_step_times(deployment: Deployment, noise: float) -> Iterator[None]:
    """Give schedulers that are built in the block the simulator's costs instead of learned ones.

    Args:
        deployment: what steps cost; one stage.
        noise: standard deviation of every step's time, as a share of it, which is known too.
    """
    p99 = NormalDist(1.0, noise).inv_cdf(0.99) if noise else 1.0

    def model() -> ExactStepTime:
        safety = ErrorQuantile(0.99, p99)
        return ExactStepTime(1 << 30, 1 << 30, safety, deployment=deployment)

    with (
        mock.patch.object(presets, "StepTimeModel", model),
        mock.patch.object(presets, "SloTokenBudget", ExactTokenBudget),
    ):
        yield
