"""The line in the log at start-up: what the settings come to, and why."""

from typing import Any

from vllm_sarathi.config import DEFAULT_TILE_SIZE, SarathiConfig, goes_with
from vllm_sarathi.objectives import RequestObjectives


def start_line(scheduler: Any, settings: SarathiConfig, asked: RequestObjectives) -> str:
    """The scheduler's class, what bounds its batches, and each setting that its preset has.

    Args:
        scheduler: a vLLM ``Scheduler``.
        settings: the settings.
        asked: objectives of a request that says nothing.
    """
    is_async = scheduler.scheduler_config.async_scheduling
    resolved = {
        name: _resolved(name, value, scheduler, settings, asked)
        for name, value in settings
        if goes_with(name, settings.preset)
    }
    return "; ".join(
        (
            f"{type(scheduler).__name__} (async_scheduling={is_async})",
            f"batches bound by {_bound(scheduler, settings)}",
            ", ".join(f"{name}={value!r} ({why})" for name, (value, why) in resolved.items()),
        )
    )


def _bound(scheduler: Any, settings: SarathiConfig) -> str:
    most = f"max_num_batched_tokens={scheduler.max_num_scheduled_tokens}"
    if settings.preset == "observe":
        return f"vLLM alone, {most}"
    size = f"{settings.batch_setting}={settings.batch_tokens}"
    learned = "objectives" if settings.follows_gaps else "step times"
    return f"{size if settings.batch_setting else learned}, at most {most}"


def _resolved(
    name: str, value: object, scheduler: Any, settings: SarathiConfig, asked: RequestObjectives
) -> tuple[object, str]:
    """The value that a setting comes to, and whether it was set, or where else it comes from."""
    why = "set" if name in settings.model_fields_set else "default"
    if name == "tbt_slo_ms" and settings.order == "mlfq":
        return None, f"from order={settings.order!r}"
    if name == "tbt_slo_ms" and value == "auto":
        meaning = "5 decode-only steps" if asked.auto_tbt else "off beside other objectives"
        return value, f"{why}: {meaning}"
    if name == "tile_size" and value == "auto":
        return _tile(settings, why)
    if value is not None:
        return value, why
    if name == "order":
        return settings.waiting_order, f"from preset={settings.preset!r}"
    if name == "balance_micro_batches":
        num_stages = scheduler.parallel_config.pipeline_parallel_size
        return num_stages > 1, f"from pipeline_parallel_size={num_stages}"
    if name == "max_stall_ms" and asked.max_stall_s is not None:
        return 1e3 * asked.max_stall_s, "from tpot_slo_ms"
    if name == settings.batch_setting:
        return settings.batch_tokens, why
    return value, why


def _tile(settings: SarathiConfig, why: str) -> tuple[object, str]:
    if settings.preset == "slo":
        return "auto", f"{why}: learned"
    if settings.preset == "decode-maximal":
        return settings.batch_multiple, f"{why}: {DEFAULT_TILE_SIZE}, at most chunk_size"
    return None, f"{why}: no rounding under preset={settings.preset!r}"
