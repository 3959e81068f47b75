"""The shortest gap between tokens that was measured, and objectives below it."""

from dataclasses import dataclass, field

from vllm_sarathi.config import SLO_FIELDS, SarathiConfig

WINDOW = 32
"""Steps of which the median counts, so that a pause among them does not matter."""


@dataclass(slots=True)
class LeastGap:
    """What steps of decodes alone take, and which objectives that rules out. O(1) a step.

    Attributes:
        objectives: in milliseconds, by the names of the settings.
        num_stages: pipeline stages, each of which a decode passes for every token.
        tokens_per_step: most tokens of one request in a step: more than 1 with drafts. They
            come together, so that the mean time per token is shorter than the gap.
        gap_s: the shortest that a gap has typically been, in seconds; None before enough were
            seen.
    """

    objectives: dict[str, float]
    num_stages: int = 1
    tokens_per_step: int = 1
    gap_s: float | None = None
    _window: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, settings: SarathiConfig, num_stages: int, tokens_per_step: int) -> "LeastGap":
        """With the objectives that the operator stated; not those of classes that are ready."""
        classes = {f"qos_classes.{name}.": qos for name, qos in settings.qos_classes.items()}
        objectives = {
            place + name: ms
            for place, stated in ({"": settings} | classes).items()
            for name in SLO_FIELDS
            if isinstance(ms := getattr(stated, name), float)
        }
        return cls(objectives, num_stages, tokens_per_step)

    def observe(self, duration_s: float) -> bool:
        """Note a step of decodes alone.

        Returns:
            Whether ``gap_s`` has changed: it only ever falls.
        """
        self._window.append(duration_s)
        if len(self._window) < WINDOW:
            return False
        typical_s = sorted(self._window)[WINDOW // 2] * self.num_stages
        self._window.clear()
        if self.gap_s is not None and self.gap_s <= typical_s:
            return False
        self.gap_s = typical_s
        return True

    def out_of_reach(self) -> dict[str, float]:
        """Objectives below the gap: a first or a last token takes a step too."""
        if self.gap_s is None:
            return {}
        gap_ms = 1e3 * self.gap_s
        mean_ms = gap_ms / self.tokens_per_step
        return {
            name: ms
            for name, ms in self.objectives.items()
            if ms < (mean_ms if name.endswith("tpot_slo_ms") else gap_ms)
        }
