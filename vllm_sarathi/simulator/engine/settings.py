"""How the engine around a scheduler is set up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vllm_sarathi.simulator.engine.speculation import Speculation

# What else a word may say of any engine (``engine_spec``).
WORD_KEYS = ("max_num_seqs", "async_scheduling", "policy", "enable_prefix_caching")
POLICIES = ("fcfs", "priority")
# What vLLM takes on a GPU where nothing is asked for, or the token budget if that is less.
DEFAULT_MAX_NUM_SEQS = 256


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the simulated vLLM engine is set up; defaults are a GPU server's.

    Args:
        scheduler: "stock" (vLLM's own), "sarathi" (ours) or a dotted path to a class.
        sarathi: settings of ours, as in ``additional_config["sarathi"]``.
        max_num_batched_tokens: vLLM's token budget, which sizes its buffers.
        max_num_seqs: most requests that run at once; None is vLLM's default, 256 or the
            token budget if that is less.
        async_scheduling: schedule the next batch while one executes. A GPU
            resolves it to True.
        v2_model_runner: the worker's model runner, V2 as on a GPU or V1.
        enable_prefix_caching: None switches it on where prompts share prefixes:
            elsewhere it only costs hashing.
        block_size: tokens in a KV block.
        policy: vLLM's queue policy, "fcfs" or "priority".
        speculation: speculative decoding; None decodes token by token.
        engine_args: further arguments of ``EngineArgs``.
        label: what reports call it; None makes one up.

    Raises:
        ValueError: names the setting that vLLM would refuse, and what is allowed.
    """

    scheduler: str = "stock"
    sarathi: Mapping[str, Any] = field(default_factory=dict)
    max_num_batched_tokens: int = 2048
    max_num_seqs: int | None = None
    async_scheduling: bool = True
    v2_model_runner: bool = True
    enable_prefix_caching: bool | None = None
    block_size: int = 16
    policy: str = "fcfs"
    speculation: Speculation | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scheduler, str) or not self.scheduler:
            raise ValueError(
                f"scheduler={self.scheduler!r} must be 'stock', 'sarathi' or a dotted path"
            )
        for name in ("max_num_batched_tokens", "max_num_seqs", "block_size"):
            value = getattr(self, name)
            if name == "max_num_seqs" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")
        if self.num_seqs > self.max_num_batched_tokens:
            raise ValueError(
                f"max_num_seqs={self.max_num_seqs} must be at most max_num_batched_tokens="
                f"{self.max_num_batched_tokens}: vLLM refuses to start otherwise"
            )
        if self.policy not in POLICIES:
            raise ValueError(f"policy={self.policy!r} must be one of {', '.join(POLICIES)}")

    @property
    def num_seqs(self) -> int:
        """Most requests that run at once."""
        if self.max_num_seqs is None:
            return min(DEFAULT_MAX_NUM_SEQS, self.max_num_batched_tokens)
        return self.max_num_seqs

    @property
    def name(self) -> str:
        """What reports call it: its label, or the word that makes it on a command line."""
        if self.label is not None:
            return self.label
        own = {key: getattr(self, key) for key in WORD_KEYS if getattr(self, key) != DEFAULTS[key]}
        pairs = [f"{key}={_as_word(value)}" for key, value in {**own, **self.sarathi}.items()]
        return ",".join([f"{self.scheduler}:{self.max_num_batched_tokens}", *pairs])


DEFAULTS = {one.name: one.default for one in fields(EngineSettings)}


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
