"""SARATHI's two batch rules over the hook of ``step-plan.patch``, each as one method."""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.sched.step_plan import StepPlan  # type: ignore[import-not-found]  # patched

MIN_PREFILL_TOKENS = 16


def is_prefill(request: Any) -> bool:
    return bool(request.is_prefill_chunk)


class DecodeMaximal(AsyncScheduler):
    """Every decode, and one chunk of one prompt."""

    chunk_size = 48

    def plan_step(self) -> Any:
        """Plan the next step."""
        prefills = [request.request_id for request in self.running if is_prefill(request)]
        return StepPlan(
            token_budget=len(self.running) - len(prefills) + self.chunk_size,
            max_prefill_tokens=self.chunk_size,
            max_admissions=0 if prefills else 1,
            skipped=frozenset(prefills[1:]),
            running_order=is_prefill,
        )


class StallFree(AsyncScheduler):
    """Every decode, then prompts begun, then new ones, under one token budget."""

    token_budget = 64

    def plan_step(self) -> Any:
        """Plan the next step."""
        num_decodes = sum(not is_prefill(request) for request in self.running)
        budget = max(self.token_budget, num_decodes + MIN_PREFILL_TOKENS)
        return StepPlan(token_budget=budget, running_order=is_prefill)


class Skipping(Scheduler):
    """The oldest request sits out every other step."""

    def plan_step(self) -> Any:
        """Plan the next step."""
        skips = self.running and self.current_step % 2
        return StepPlan(skipped=frozenset([self.running[0].request_id] if skips else []))
