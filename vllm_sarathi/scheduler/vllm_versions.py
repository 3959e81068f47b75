"""What differs between vLLM versions, told by what they have, and the versions supported."""

import sys
from collections.abc import Collection
from typing import Any

from packaging.specifiers import SpecifierSet

SUPPORTED_VLLM = SpecifierSet(">=0.26,<0.34")
FEATURES = {
    "skipped_waiting": SpecifierSet("<0.31"),
    "kv_holding_waiting": SpecifierSet(">=0.31"),
    "deferred_waiting": SpecifierSet(">=0.31"),
    "max_num_active_reqs": SpecifierSet(">=0.31"),
    "adaptive_long_prefill_threshold": SpecifierSet(">=0.31"),
    "num_prefill_lookahead": SpecifierSet(">=0.28"),
    "_reserve_prefill_lookahead": SpecifierSet(">=0.28"),
    "GenerationError": SpecifierSet(">=0.29"),
    "accept_tokens": SpecifierSet(">=0.30"),
    "num_executed_steps": SpecifierSet(">=0.33"),
}
"""What the code asks for before it uses it, and the versions that have it. A test on each version
shows that this is so; another fails when all versions supported have it, or none."""


def check_vllm_version(version: str) -> None:
    """Refuse a vLLM whose scheduler may differ from those tested.

    Raises:
        RuntimeError: names the version found and those supported.
    """
    if not SUPPORTED_VLLM.contains(version, prereleases=True):
        raise RuntimeError(
            f"vllm-sarathi supports vllm {SUPPORTED_VLLM}, but vllm {version} is installed; "
            "install a supported pair, or serve with --scheduler default"
        )


def second_waiting_queue(scheduler: Any) -> Any:
    """Requests that hold KV blocks already or were skipped: vLLM looks at them first."""
    name = "kv_holding_waiting" if hasattr(scheduler, "kv_holding_waiting") else "skipped_waiting"
    return getattr(scheduler, name)


def passed_over(scheduler: Any) -> Collection[Any]:
    """Requests that vLLM could not admit when it last tried, in versions that keep them apart."""
    found: Collection[Any] = getattr(scheduler, "deferred_waiting", ())
    return found


def admission_attribute(scheduler: Any) -> str:
    """Name of vLLM's limit on running requests; newer versions keep one for admission alone."""
    newer = "max_num_active_reqs"
    return newer if hasattr(scheduler, newer) else "max_num_running_reqs"


def long_prefill_overrides(scheduler: Any) -> dict[str, bool]:
    """Attributes of newer versions that would change a long-prefill threshold set by hand."""
    adaptive = "adaptive_long_prefill_threshold"
    return {adaptive: False} if hasattr(scheduler, adaptive) else {}


def step_counters(scheduler: Any) -> tuple[str, ...]:
    """Names of vLLM's counts of steps; newer versions count those that run a batch apart."""
    newer = "num_executed_steps"
    return ("current_step", newer) if hasattr(scheduler, newer) else ("current_step",)


def keeps_paused_decodes(scheduler: Any) -> bool:
    """Whether decodes lose nothing by sitting a step out.

    vLLM's first model runner forgets requests that a step leaves out, and gets all
    their tokens anew when they return; its second one keeps them. Drafts of speculative
    decoding are lost with either, and adapters are counted over the requests in a step.
    """
    keeps = bool(getattr(scheduler, "use_v2_model_runner", False))
    return keeps and not scheduler.num_spec_tokens and not scheduler.lora_config


def max_chunk(scheduler: Any) -> int:
    """Most prefill tokens of one request in a step; what newer versions adapt is not foreseen."""
    if getattr(scheduler, "adaptive_long_prefill_threshold", False):
        return sys.maxsize
    return int(scheduler.scheduler_config.long_prefill_token_threshold) or sys.maxsize


def model_min_chunk(scheduler: Any) -> int:
    """Least chunk that makes progress: some models can only be cut at certain places."""
    lookahead = getattr(scheduler, "num_prefill_lookahead", 0)
    least = max(1 + scheduler.num_spec_tokens, 1 + lookahead)
    if scheduler.need_mamba_block_aligned_split:
        least = max(least, scheduler.cache_config.block_size)
    if keeps_items_whole(scheduler):
        least = scheduler.max_num_scheduled_tokens
    return int(min(least, scheduler.max_num_scheduled_tokens))


def keeps_items_whole(scheduler: Any) -> bool:
    """Whether an image or the like must be in one chunk, so that any batch may grow."""
    whole = scheduler.scheduler_config.disable_chunked_mm_input
    return bool(whole and scheduler.max_num_encoder_input_tokens)
