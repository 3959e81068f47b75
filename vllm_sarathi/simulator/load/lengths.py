"""Loads in which requests differ in kind, and all loads by name."""

from dataclasses import dataclass, replace

import numpy as np

from vllm_sarathi.simulator.load.distributions import (
    ARXIV,
    CODE,
    CONVERSATION,
    SHAREGPT,
    LengthDistribution,
    Quantiles,
    Random,
    Zipf,
)
from vllm_sarathi.simulator.load.traffic import LengthSource
from vllm_sarathi.simulator.load.workload import Lengths


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
