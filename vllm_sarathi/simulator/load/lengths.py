"""How long prompts and outputs are, and all loads by name."""

from dataclasses import dataclass, replace

import numpy as np

from vllm_sarathi.simulator.load.traffic import LengthSource, Random
from vllm_sarathi.simulator.load.workload import Ints, Lengths


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


@dataclass(frozen=True, slots=True)
class LongAmongShort:
    """One long prompt in every so many short ones.

    Args:
        short: the others.
        every: one request in so many is long.
        num_prompt: its prompt tokens.
        num_output: its output tokens.
    """

    short: LengthDistribution = CONVERSATION
    every: int = 100
    num_prompt: int = 100_000
    num_output: int = 200

    @property
    def name(self) -> str:
        """What reports call it."""
        return "long-among-short"

    def draw(self, num: int, random: Random) -> Lengths:
        """Draw so many requests' lengths."""
        lengths = self.short.draw(num, random)
        long = np.arange(num) % self.every == self.every // 2
        return Lengths(
            np.where(long, self.num_prompt, lengths.num_prompt),
            np.where(long, self.num_output, lengths.num_output),
        )


TURN_OUTPUT = Quantiles(((0, 16), (0.5, 150), (0.9, 400), (1, 800)))


@dataclass(frozen=True, slots=True)
class Agentic:
    """Sessions whose every turn repeats the prompt before it and adds a little.

    Args:
        hit_share: share of turns whose context is still cached.
        num_context: tokens of a session's context, and so of a miss.
        num_added: prompt tokens that a turn adds.
        num_sessions: sessions at a time.
        output: output tokens of a turn.
    """

    hit_share: float = 0.95
    num_context: int = 50_000
    num_added: int = 1_000
    num_sessions: int = 4
    output: Quantiles = TURN_OUTPUT

    @property
    def name(self) -> str:
        """What reports call it."""
        return "agentic"

    def draw(self, num: int, random: Random) -> Lengths:
        """Draw so many turns; a miss opens a new session in an old one's place."""
        current = np.arange(self.num_sessions)
        turns = np.zeros(self.num_sessions, np.int64)
        prefix, prompt = np.zeros(num, np.int64), np.zeros(num, np.int64)
        opened = self.num_sessions
        for i, seat in enumerate(random.integers(self.num_sessions, size=num)):
            if random.random() >= self.hit_share:
                current[seat], turns[seat], opened = opened, 0, opened + 1
            prefix[i] = current[seat]
            prompt[i] = self.num_context + turns[seat] * self.num_added
            turns[seat] += 1
        return replace(
            Lengths(prompt, self.output.draw(num, random)), num_shared=prompt, prefix=prefix
        )


LENGTHS: dict[str, LengthSource] = {
    "sharegpt": SHAREGPT,
    "arxiv": ARXIV,
    "conversation": CONVERSATION,
    "code": CODE,
    "zipf": Zipf(),
    "agentic": Agentic(),
    "long-among-short": LongAmongShort(),
}
