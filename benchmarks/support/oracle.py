"""Our scheduler with the simulator's costs for a step-time model: the bound of what learning gets.

The simulator finds ``OracleScheduler`` by its path (``oracle``).
"""

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from statistics import NormalDist
from typing import Any

from vllm_sarathi import AsyncSarathiScheduler
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.policy.batch_builder import BatchBuilder
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.step import StepPlan, StepView
from vllm_sarathi.policy.step_time import ErrorQuantile, StepTimeModel, StepWork
from vllm_sarathi.simulator import Deployment, EngineSettings, StepCost


@dataclass(kw_only=True)
class ExactStepTime(StepTimeModel):
    """Predicts by the cost model itself, and learns nothing.

    The cost counts sampled tokens too, which a ``StepWork`` does not: the requests tell them.

    Attributes:
        cost: what steps cost.
        view: the requests that the next batch is chosen from.
    """

    cost: StepCost
    view: StepView = field(default_factory=partial(StepView, 0))

    def predict(self, work: StepWork) -> float:
        """Duration of a step without noise, in seconds.

        Exact where all prefill is in view; waiting prompts beyond it are taken to sample nothing.
        """
        return self.cost.step_s(work, self._num_sampled(work))

    def has_seen(self, num_tokens: int) -> bool:
        """Nothing to try."""
        return True

    def observe(self, work: StepWork, duration_s: float) -> None:
        """Nothing to learn."""

    def _num_sampled(self, work: StepWork) -> int:
        """One token for each decode, if they are in the batch, and for each prompt it ends."""
        view = self.view if work.decode_context else self.view.without_decodes()
        prompts = (*view.prefills, *view.backlog.admissible)
        num_prefill = work.num_tokens - view.num_decode_tokens
        ends = accumulate(prompt.num_tokens for prompt in prompts)
        return view.num_decodes + sum(end <= num_prefill for end in ends)


@dataclass(frozen=True, slots=True)
class InformedBuilder:
    """Shows a model the requests before a batch is composed of them."""

    builder: BatchBuilder
    model: ExactStepTime

    def plan(self, view: StepView) -> StepPlan:
        """Compose the next batch."""
        self.model.view = view
        return self.builder.plan(view)


class OracleScheduler(AsyncSarathiScheduler):
    """Knows what every step will take, but for the noise of this one."""

    def make_policy(
        self, settings: SarathiConfig, min_chunk: int, step_time: StepTimeModel | None = None
    ) -> Policy:
        """Ours, with exact step times; ``oracle`` tells it the deployment and the noise."""
        told = self.vllm_config.additional_config["oracle"]
        (cost,) = Deployment.from_json(told["deployment"]).stages
        p99 = NormalDist(1.0, told["noise"]).inv_cdf(0.99) if told["noise"] else 1.0
        model = ExactStepTime(1 << 30, 1 << 30, ErrorQuantile(0.99, p99), cost=cost)
        found = super().make_policy(settings, min_chunk, model)
        assert found.builder is not None, "the oracle chooses batches itself"
        return replace(found, builder=InformedBuilder(found.builder, model))


def oracle(
    deployment: Deployment, noise: float, settings: dict[str, Any], **fields: Any
) -> EngineSettings:
    """The oracle as an engine.

    Args:
        deployment: what steps cost; one stage.
        noise: standard deviation of every step's time, as a share of it, which is known too.
        settings: of our scheduler.
        fields: others of ``EngineSettings``.
    """
    told = {"deployment": deployment.to_json(), "noise": noise}
    more = {"additional_config": {"oracle": told}}
    path = f"{__name__}.{OracleScheduler.__name__}"
    return EngineSettings(path, settings, engine_args=more, **fields)
