"""How the engine around a scheduler is set up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# What else a word may say of any engine (``scheduler_spec``).
WORD_KEYS = ("max_num_seqs", "async_scheduling", "policy", "enable_prefix_caching")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the simulated vLLM engine is set up; defaults are a GPU server's.

    Args:
        scheduler: "stock" (vLLM's own), "sarathi" (ours) or a dotted path to a class.
        sarathi: settings of ours, as in ``additional_config["sarathi"]``.
        max_num_batched_tokens: vLLM's token budget, which sizes its buffers.
        max_num_seqs: most requests that run at once.
        async_scheduling: schedule the next batch while one executes. A GPU
            resolves it to True.
        v2_model_runner: the worker's model runner, V2 as on a GPU or V1.
        enable_prefix_caching: None switches it on where prompts share prefixes:
            elsewhere it only costs hashing.
        block_size: tokens in a KV block.
        policy: vLLM's queue policy, "fcfs" or "priority".
        engine_args: further arguments of ``EngineArgs``.
        label: what reports call it; None makes one up.
    """

    scheduler: str = "stock"
    sarathi: Mapping[str, Any] = field(default_factory=dict)
    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    async_scheduling: bool = True
    v2_model_runner: bool = True
    enable_prefix_caching: bool | None = None
    block_size: int = 16
    policy: str = "fcfs"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None

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
