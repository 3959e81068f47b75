"""A step-time model that knows the simulator's costs: what a learned one is held against."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from vllm_sarathi.error_quantile import ErrorQuantile
from vllm_sarathi.simulator import Deployment
from vllm_sarathi.simulator.step_cost import BatchShape
from vllm_sarathi.step_time import StepTimeModel, StepWork


@dataclass
class ExactStepTime(StepTimeModel):
    """Predicts by the cost model itself, and learns nothing.

    It knows how much noise a run adds to every step, too.
    """

    deployment: Deployment | None = None

    @classmethod
    def of(cls, deployment: Deployment, noise: float) -> Callable[[], "ExactStepTime"]:
        """What makes a model of a deployment with one stage.

        Args:
            deployment: what steps cost.
            noise: standard deviation of every step's time, as a share of it.
        """
        p99 = NormalDist(1.0, noise).inv_cdf(0.99) if noise else 1.0
        safety = ErrorQuantile(0.99, p99)
        return lambda: cls(largest_seen=1 << 30, safety=safety, deployment=deployment)

    def predict(self, work: StepWork) -> float:
        """Duration of a step without noise, in seconds."""
        (stage,) = self.deployment.stages
        return stage.step_s(BatchShape(*work, num_sampled=0))

    def observe(self, work: StepWork, duration_s: float) -> float | None:
        """Nothing to learn."""
        return duration_s / self.predict(work)
