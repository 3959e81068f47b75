"""Demoted decodes that pause, as in FastServe: what the order "mlfq" does without."""

from dataclasses import dataclass, replace
from typing import Any

from vllm_sarathi import AsyncSarathiScheduler
from vllm_sarathi.policy.micro_batch import Cohorts
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import Decodes
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork

_RESUMES = 8
"""In one step of so many all decodes run, so that none starves."""


@dataclass(slots=True)
class PausedLevels(Cohorts):
    """Decodes in levels by the tokens that they got, each level twice as many as the one above.

    A level runs if that makes the sum of the levels' weights for each second of the step larger.
    A level weighs half of the one above: as little as it takes to end soon, after so many tokens.

    Attributes:
        model: predicts step times.
    """

    num_stages: int = 1
    model: StepTimeModel | None = None
    _num_steps: int = 0

    def choose(self, decodes: Decodes, num_decodes: int) -> tuple[Decodes, tuple[Any, ...]]:
        """The decodes that run, and the requests of those that pause."""
        self._num_steps += 1
        if not (self.model and self.model.is_warm and self._num_steps % _RESUMES):
            return decodes, ()
        levels: dict[int, list[int]] = {}
        for at, request in enumerate(decodes.requests):
            levels.setdefault(int(request.num_output_tokens).bit_length(), []).append(at)
        chosen, weight, context, best = list[int](), 0.0, 0, 0.0
        for level in sorted(levels):
            weight += len(levels[level]) / 2**level
            context += sum(decodes.contexts[at] for at in levels[level])
            work = StepWork(len(chosen) + len(levels[level]), 0.0, context)
            rate = weight / self.model.predict(work)
            if rate < best:
                break
            best = rate
            chosen += levels[level]
        kept = frozenset(chosen)
        paused = (r for at, r in enumerate(decodes.requests) if at not in kept)
        return decodes.at(sorted(kept)), tuple(paused)


class PausingScheduler(AsyncSarathiScheduler):
    """Ours, with such pauses."""

    def make_policy(self, *args: Any, **kwargs: Any) -> Policy:
        """The policy of the settings, with pauses."""
        policy = AsyncSarathiScheduler.make_policy(self, *args, **kwargs)
        return replace(policy, cohorts=PausedLevels(model=policy.step_time))
