"""Requests and when they arrive."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.kv_room import BLOCK_SIZE, IN_FLIGHT_TOKENS, kv_blocks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NO_OBJECTIVES = Objectives()


@dataclass(frozen=True, slots=True)
class QosClass:
    """Requests that ask for the same.

    Args:
        name: what reports call it.
        objectives: what its requests ask of their latency.
        priority: vLLM's priority, lower first; read under the "priority" policy.
        extra_args: what each request carries in ``SamplingParams.extra_args``.
    """

    name: str = "default"
    objectives: Objectives = NO_OBJECTIVES
    priority: int = 0
    extra_args: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """What prompts are made of, where a trace tells: equal ids are equal tokens.

    Args:
        ids: for each request, the ids of its prompt's blocks, first to last.
        num_tokens: tokens in a block.
    """

    ids: Sequence[tuple[int, ...]]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token counts of requests, one entry for each.

    Args:
        num_prompt: prompt tokens.
        num_output: output tokens.
        num_shared: leading prompt tokens that are shared within a prefix group.
        prefix: the group; requests of one group share as many leading tokens as
            both have.
        blocks: what the prompts are made of, instead of groups.
    """

    num_prompt: Ints
    num_output: Ints
    num_shared: Ints | None = None
    prefix: Ints | None = None
    blocks: PromptBlocks | None = None

    @property
    def num_distinct(self) -> int:
        """Prompt tokens of all requests, those that several share counted once."""
        num_prompt = self.num_prompt
        if self.blocks is not None:
            size = self.blocks.num_tokens
            shared = np.minimum([len(ids) * size for ids in self.blocks.ids], num_prompt)
            distinct = len({one for ids in self.blocks.ids for one in ids}) * size
            return min(int((num_prompt - shared).sum()) + distinct, int(num_prompt.sum()))
        if self.num_shared is None or self.prefix is None:
            return int(num_prompt.sum())
        shared = np.minimum(self.num_shared, num_prompt)
        longest: dict[int, int] = {}
        for group, num in zip(self.prefix.tolist(), shared.tolist(), strict=True):
            longest[group] = max(num, longest.get(group, 0))
        return int((num_prompt - shared).sum()) + sum(longest.values())

    def at(self, chosen: slice) -> "Lengths":
        """Those of some of the requests."""
        blocks = self.blocks
        return Lengths(
            self.num_prompt[chosen],
            self.num_output[chosen],
            None if self.num_shared is None else self.num_shared[chosen],
            None if self.prefix is None else self.prefix[chosen],
            None if blocks is None else replace(blocks, ids=blocks.ids[chosen]),
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival: parallel arrays, one entry for each request.

    Args:
        name: what reports call it.
        arrival_s: when each request arrives, rising.
        lengths: token counts.
        classes: kinds of requests.
        class_of: each request's index into ``classes``; empty: all are of the first.
        where: what errors call each request, such as its line in a file; empty: its index.

    Raises:
        ValueError: names the request whose time or lengths are impossible.
    """

    name: str
    arrival_s: Floats
    lengths: Lengths
    classes: tuple[QosClass, ...] = (QosClass(),)
    class_of: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    where: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not len(self.class_of):
            object.__setattr__(self, "class_of", np.zeros(len(self.arrival_s), np.int64))
        self._refuse(self.arrival_s < 0, "arrival_s", self.arrival_s, "0 or later")
        falling = np.diff(self.arrival_s, prepend=0.0) < 0
        self._refuse(falling, "arrival_s", self.arrival_s, "no earlier than the request before")
        self._refuse(
            self.lengths.num_prompt < 1, "num_prompt", self.lengths.num_prompt, "1 or more"
        )
        self._refuse(
            self.lengths.num_output < 1, "num_output", self.lengths.num_output, "1 or more"
        )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def shares_prefixes(self) -> bool:
        """Whether prompts share prefixes, so that a prefix cache can hit."""
        return self.lengths.num_shared is not None or self.lengths.blocks is not None

    def check_fits(
        self,
        max_model_len: int,
        num_kv_tokens: int,
        kv_windows: Sequence[int | None] = (None,),
        *,
        block_size: int = BLOCK_SIZE,
        in_flight_tokens: int = IN_FLIGHT_TOKENS,
    ) -> None:
        """Refuse requests that the model or its KV cache cannot take.

        Raises:
            ValueError: names the request, its tokens and what is allowed.
        """
        total = self.lengths.num_prompt + self.lengths.num_output
        self._refuse(
            total > max_model_len,
            "prompt + output tokens",
            total,
            f"at most max_model_len={max_model_len}",
        )
        # vLLM keeps one block to itself, and a request's last token needs no room.
        room = num_kv_tokens // block_size * len(kv_windows) - 1
        taken = (kv_windows, block_size, in_flight_tokens)
        too_long = kv_blocks(total - 1, *taken) > room
        if too_long.any():
            fits = kv_blocks(np.arange(max_model_len), *taken) <= room
            self._refuse(
                too_long,
                "prompt + output tokens",
                total,
                f"at most {fits.sum()}: num_kv_tokens={num_kv_tokens} in blocks of {block_size}",
            )

    def every(self, num: int, first: int = 0) -> "Workload":
        """One request of each so many, at the times that they have."""
        chosen = slice(first, None, num)
        return replace(
            self,
            arrival_s=self.arrival_s[chosen],
            lengths=self.lengths.at(chosen),
            class_of=self.class_of[chosen],
            where=self.where[chosen],
        )

    def at_times(self, arrival_s: Floats) -> "Workload":
        """The same requests at other times."""
        return replace(self, arrival_s=arrival_s)

    def with_classes(self, classes: Sequence[tuple[QosClass, float]], seed: int = 0) -> "Workload":
        """Give each request a class at random, in the given shares."""
        shares = np.array([share for _, share in classes], float)
        if not len(shares) or (shares < 0).any() or not shares.sum() > 0:
            raise ValueError(f"class shares {shares.tolist()} must be 0 or more and not all 0")
        chosen = np.random.default_rng(seed).choice(
            len(classes), size=len(self), p=shares / shares.sum()
        )
        return replace(self, classes=tuple(c for c, _ in classes), class_of=chosen)

    def _refuse(self, wrong: npt.NDArray[np.bool_], name: str, values: Any, allowed: str) -> None:
        if wrong.any():
            first = int(np.argmax(wrong))
            who = self.where[first] if self.where else f"request {first}"
            raise ValueError(f"{who}: {name}={values[first]} must be {allowed}")
