"""What executes batches: pipeline stages that each take their time."""

from collections import deque
from dataclasses import dataclass
from operator import gt
from random import Random

from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.simulator.machine.step_cost import Deployment, Overhead


@dataclass(frozen=True, slots=True)
class Execution:
    """One batch on its way through the stages.

    Args:
        num_tokens: tokens in it; an empty batch passes at once.
        ready_s: when its tokens are back at the engine.
        sampled: ids of the requests that get a token.
        stages: start and end on each stage, in seconds.
    """

    num_tokens: int
    ready_s: float
    sampled: frozenset[str]
    stages: tuple[tuple[float, float], ...] = ()


class Pipeline:
    """The stages of a deployment. A stage runs one batch at a time, in order.

    Args:
        deployment: costs of the stages and around them.
        noise: standard deviation of a step's time, as a share of it.
        seed: of the noise.
        waits_for_tokens: a batch starts only after the batch ``num_stages`` before
            it has sampled, empty ones counted, as in vLLM's V2 runner (``PPHandler``):
            its decodes need those tokens.
        drafting_s: seconds that the last stage drafts for after it has sampled.
    """

    def __init__(
        self,
        deployment: Deployment,
        noise: float,
        seed: int,
        waits_for_tokens: bool,
        drafting_s: float = 0.0,
    ) -> None:
        num_stages = len(deployment.stages)
        self.deployment = deployment
        self.busy_s = [0.0] * num_stages
        self.num_extrapolated = 0  # steps beyond any that the costs were fitted to
        self._free_s = [0.0] * num_stages
        self._prepared_s = 0.0
        self._drafting_s = [*[0.0] * (num_stages - 1), drafting_s]
        self._noise = noise
        self._random = Random(seed)
        depth = num_stages if waits_for_tokens and num_stages > 1 else 0
        self._sampled_s = deque([0.0] * depth, maxlen=depth)

    @property
    def overhead(self) -> Overhead:
        """CPU time around a step."""
        return self.deployment.overhead

    def execute(
        self, sent_s: float, work: StepWork, sampled: frozenset[str], num_drafts: int = 0
    ) -> Execution:
        """Send a batch through the stages.

        Args:
            sent_s: when the engine sends it off.
            work: what decides its duration, with the tokens sampled.
            sampled: ids of the requests that get a token from it.
            num_drafts: drafts that it verifies: each is sampled as a token is.
        """
        self._wait_for_tokens()
        if not work.num_tokens:
            self._sampled_s.append(0.0)
            return Execution(0, sent_s, sampled)
        deployment = self.deployment
        largest = deployment.largest_step
        if largest is not None and any(map(gt, work, largest)):
            self.num_extrapolated += 1
        self._prepared_s = max(sent_s, self._prepared_s) + deployment.overhead.prepare_s
        start_s = self._prepared_s
        send_s = deployment.send_s + work.num_tokens * deployment.send_token_s
        times = []
        for i, stage in enumerate(deployment.stages):
            start_s = max(start_s, self._free_s[i])
            step_s = stage.step_s(work, len(sampled)) + num_drafts * stage.sampled_s
            if sampled:
                step_s += self._drafting_s[i]
            step_s *= self._factor()
            end_s = self._free_s[i] = start_s + step_s
            self.busy_s[i] += step_s
            times.append((start_s, end_s))
            start_s = end_s + send_s
        self._sampled_s.append(end_s if sampled else 0.0)
        return Execution(work.num_tokens, end_s, sampled, tuple(times))

    def _wait_for_tokens(self) -> None:
        """Hold every stage but the last until the batch ``num_stages`` ago has sampled."""
        if self._sampled_s:
            tokens_back_s = self._sampled_s[0]
            self._free_s[:-1] = [max(free_s, tokens_back_s) for free_s in self._free_s[:-1]]

    def _factor(self) -> float:
        if not self._noise:
            return 1.0
        return max(0.5, self._random.gauss(1.0, self._noise))
