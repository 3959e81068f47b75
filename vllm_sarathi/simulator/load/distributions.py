"""How long prompts and outputs are."""

from dataclasses import dataclass

import numpy as np

from vllm_sarathi.simulator.load.workload import Ints, Lengths

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution through given quantiles, geometric in between.

    Args:
        points: (share of requests, tokens), from share 0 to share 1, both rising.
    """

    points: tuple[tuple[float, float], ...]

    def draw(self, num: int, random: Random) -> Ints:
        """Draw so many token counts."""
        shares, tokens = zip(*self.points, strict=True)
        drawn = np.exp(np.interp(random.random(num), shares, np.log(tokens)))
        return np.asarray(np.maximum(1, np.rint(drawn)), np.int64)


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Prompt and output lengths, drawn independently.

    Args:
        name: what reports call it.
        prompt: prompt tokens.
        output: output tokens.
        max_total: prompts are cut so that prompt and output stay below this.
    """

    name: str
    prompt: Quantiles
    output: Quantiles
    max_total: int

    def draw(self, num: int, random: Random) -> Lengths:
        """Draw so many requests' lengths."""
        output = np.minimum(self.output.draw(num, random), self.max_total - 1)
        prompt = np.minimum(self.prompt.draw(num, random), self.max_total - output)
        return Lengths(prompt, output)


# Sarathi-Serve (arXiv 2403.02310), table 2: openchat_sharegpt4.
SHAREGPT = LengthDistribution(
    "sharegpt-like",
    Quantiles(((0, 16), (0.5, 1730), (0.9, 5696), (1, 8000))),
    Quantiles(((0, 8), (0.5, 415), (0.9, 834), (1, 1200))),
    8192,
)
# Sarathi-Serve (arXiv 2403.02310), table 2: arxiv_summarization.
ARXIV = LengthDistribution(
    "arxiv-like",
    Quantiles(((0, 800), (0.5, 7059), (0.9, 12985), (1, 16000))),
    Quantiles(((0, 20), (0.5, 208), (0.9, 371), (1, 1500))),
    16384,
)
# Azure LLM inference trace 2023, conversation (Splitwise, ISCA 2024).
CONVERSATION = LengthDistribution(
    "conversation",
    Quantiles(((0, 8), (0.25, 350), (0.5, 1020), (0.9, 2735), (0.99, 4142), (1, 8000))),
    Quantiles(((0, 4), (0.5, 129), (0.9, 424), (0.99, 601), (1, 1000))),
    16384,
)
# Azure LLM inference trace 2023, code (Splitwise, ISCA 2024).
CODE = LengthDistribution(
    "code",
    Quantiles(((0, 30), (0.5, 1469), (0.9, 5194), (0.99, 7436), (1, 7500))),
    Quantiles(((0, 2), (0.5, 13), (0.9, 55), (0.99, 252), (1, 900))),
    16384,
)


@dataclass(frozen=True, slots=True)
class Zipf:
    """Total lengths by Zipf's law, split at a prompt-to-decode ratio (SARATHI, section 5.3).

    Args:
        pd_ratio: prompt tokens for each output token.
        low: shortest total.
        high: longest total.
        theta: the law's exponent; rank 1 is the shortest.
    """

    pd_ratio: float = 10.0
    low: int = 1024
    high: int = 4096
    theta: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.pd_ratio < float("inf"):
            raise ValueError(f"pd_ratio={self.pd_ratio!r} must be a number above 0")

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"zipf-{self.low}-{self.high}-pd{self.pd_ratio:g}"

    def draw(self, num: int, random: Random) -> Lengths:
        """Draw so many requests' lengths."""
        totals = np.arange(self.low, self.high + 1)
        weights = np.arange(1, len(totals) + 1) ** -self.theta
        total = random.choice(totals, size=num, p=weights / weights.sum())
        output = np.maximum(1, np.rint(total / (1 + self.pd_ratio))).astype(np.int64)
        return Lengths(np.maximum(1, total - output), output)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every request alike."""

    num_prompt: int
    num_output: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 1 token or more")

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"fixed-{self.num_prompt}-{self.num_output}"

    def draw(self, num: int, random: Random) -> Lengths:
        """So many requests' lengths."""
        return Lengths(np.full(num, self.num_prompt), np.full(num, self.num_output))
