"""How long decodes have paused."""

from typing import NamedTuple


class DecodePause(NamedTuple):
    """Decodes that pause, as seen after a step.

    Attributes:
        num_decodes: how many the step left out.
        paused_s: how long those have paused that ran last before it, in seconds.
    """

    num_decodes: int = 0
    paused_s: float = 0.0

    def after(self, num_paused: int, duration_s: float) -> "DecodePause":
        """The pause after one more step, which so many decodes sat out."""
        return DecodePause(num_paused, self.paused_s + duration_s) if num_paused else DecodePause()

    def num_late(self, num_decodes: int, gap_s: float, objective_s: float) -> int:
        """How many tokens of a step came late.

        Args:
            num_decodes: decodes in it, of which those first that have paused.
            gap_s: gap that it makes for those that have not, in seconds.
            objective_s: longest gap that is in time.
        """
        if gap_s > objective_s:
            return num_decodes
        return min(num_decodes, self.num_decodes) if self.paused_s + gap_s > objective_s else 0
