"""How many tokens the next batch may hold."""

from dataclasses import dataclass

from vllm_sarathi.step import BatchLimit, StepView


@dataclass(frozen=True, slots=True)
class FixedTokenBudget:
    """One number for every batch (Sarathi-Serve, arXiv 2403.02310, section 4.3).

    Attributes:
        num_tokens: tokens of a batch, decodes included.
    """

    num_tokens: int

    def __call__(self, view: StepView) -> tuple[int, BatchLimit]:
        """Return the number, whatever the view."""
        return self.num_tokens, BatchLimit.TOKEN_BUDGET
