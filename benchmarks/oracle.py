"""A step-time model that knows the simulator's costs: what a learned one is held against."""

from collections.abc import Callable
from dataclasses import dataclass

from vllm_sarathi.error_quantile import ErrorQuantile
from vllm_sarathi.simulator import Deployment
from vllm_sarathi.simulator.step_cost import BatchShape
from vllm_sarathi.step_time import StepTimeModel, StepWork


@dataclass
class ExactStepTime(StepTimeModel):
    """Predicts by the cost model itself, and learns nothing.

    It does not know the noise that a run adds to every step.
    """

    deployment: Deployment | None = None

    @classmethod
    def of(cls, deployment: Deployment) -> Callable[[], "ExactStepTime"]:
        """What makes a model of a deployment with one stage."""
        return lambda: cls(
            largest_seen=1 << 30, safety=ErrorQuantile(0.99, 1.0), deployment=deployment
        )

    def predict(self, work: StepWork) -> float:
        """Duration of a step without noise, in seconds."""
        (stage,) = self.deployment.stages
        return stage.step_s(BatchShape(*work, num_sampled=0))

    def observe(self, work: StepWork, duration_s: float) -> float | None:
        """Nothing to learn."""
        return duration_s / self.predict(work)
