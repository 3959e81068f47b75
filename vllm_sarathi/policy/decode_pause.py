"""How long decodes have sat steps out."""

from typing import NamedTuple


class DecodeWait(NamedTuple):
    """Decodes that wait, as seen after a step.

    Attributes:
        num_decodes: how many the step left out.
        waited_s: how long those have waited that ran last before it, in seconds.
    """

    num_decodes: int = 0
    waited_s: float = 0.0

    def after(self, num_waiting: int, duration_s: float) -> "DecodeWait":
        """The wait after one more step, which as many decodes sat out."""
        return DecodeWait(num_waiting, self.waited_s + duration_s) if num_waiting else DecodeWait()

    def num_late(self, num_decodes: int, gap_s: float, objective_s: float) -> int:
        """How many tokens of a step came late.

        Args:
            num_decodes: decodes in it, of which those first that have waited.
            gap_s: gap that it makes for those that have not, in seconds.
            objective_s: longest gap that is in time.
        """
        if gap_s > objective_s:
            return num_decodes
        return min(num_decodes, self.num_decodes) if self.waited_s + gap_s > objective_s else 0
