"""In which order prompts are served, where there is an objective for the first token."""

from dataclasses import dataclass
from math import inf

_MEMORY_REQUESTS = 1000


@dataclass(slots=True)
class PromptDeadlines:
    """When the first token of a prompt is due.

    A prompt of mean length is due one objective after it came, one twice as long two.
    So short prompts overtake long ones, but only for so long: nobody waits for ever.
    It is the hybrid priority of Niyama (arXiv 2503.22562, section 3), its weight of a
    prefill token being the objective over the mean length.

    Attributes:
        ttft_s: objective for the time to first token, in seconds.
        mean_tokens: prefill tokens of a prompt, on average.
    """

    ttft_s: float
    mean_tokens: float = 0.0
    _num_seen: int = 0

    def observe(self, num_tokens: int) -> None:
        """Note the prefill tokens of a request that came."""
        self._num_seen = min(self._num_seen + 1, _MEMORY_REQUESTS)
        self.mean_tokens += (num_tokens - self.mean_tokens) / self._num_seen

    def due_s(self, arrival_s: float, num_tokens: int, has_begun: bool = False) -> float:
        """When a request is due, on the clock of its arrival, in seconds.

        Args:
            arrival_s: when it came.
            num_tokens: prefill tokens left.
            has_begun: whether tokens of it are out already, so that a gap grows: now.
        """
        if has_begun:
            return -inf
        return arrival_s + self.ttft_s * num_tokens / max(self.mean_tokens, 1.0)
