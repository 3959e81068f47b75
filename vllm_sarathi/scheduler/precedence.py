"""Which wins where a setting of vLLM's and one of ours limit the same thing."""

from typing import Any

from vllm_sarathi.config import SLO_FIELDS, SarathiConfig


def precedence(scheduler_config: Any, settings: SarathiConfig) -> list[str]:
    """A line for each setting of vLLM's that an operator set beside ours, and what wins.

    Under the preset "observe" vLLM decides everything, so there is none.

    Args:
        scheduler_config: vLLM's; older versions lack some of its fields.
        settings: ours.
    """
    if settings.preset == "observe":
        return []
    found = (_threshold, _interval, _active, _queued, _stream_interval)
    return [line for say in found if (line := say(scheduler_config, settings))]


def _threshold(config: Any, settings: SarathiConfig) -> str:
    threshold = int(config.long_prefill_token_threshold)
    if not threshold:
        return ""
    line = (
        f"long_prefill_token_threshold={threshold} and {_batch(settings)}: while several requests "
        "are there, no chunk is longer than the threshold; the batch is no larger than ours"
    )
    if getattr(config, "long_prefill_token_threshold_adaptive", False):
        line += "; where we cut a chunk shorter, the adaptive threshold does not lengthen it"
    return line


def _interval(config: Any, settings: SarathiConfig) -> str:
    interval = int(getattr(config, "prefill_schedule_interval", 1))
    if interval == 1:
        return ""
    return (
        f"prefill_schedule_interval={interval} and {_objectives(settings)}: the interval wins, "
        "where vLLM applies it; prompts wait for it even if they miss an objective"
    )


def _active(config: Any, settings: SarathiConfig) -> str:
    most = getattr(config, "max_num_active_seqs", None)
    if most is None:
        return ""
    return (
        f"max_num_active_seqs={most} and {_objectives(settings)}: the smaller number of running "
        "requests wins, this limit or what the objectives admit"
    )


def _queued(config: Any, settings: SarathiConfig) -> str:
    limits = {
        name: getattr(config, name, None)
        for name in ("max_num_queued_reqs", "max_num_queued_tokens")
    }
    given = [f"{name}={value}" for name, value in limits.items() if value is not None]
    if not given:
        return ""
    return (
        f"{', '.join(given)} and order={settings.waiting_order!r}, shed={settings.shed}: vLLM's "
        "limits win; the API server refuses a request with HTTP 503 before we see it, however "
        "important or early it is"
    )


def _stream_interval(config: Any, settings: SarathiConfig) -> str:
    interval = int(config.stream_interval)
    if interval == 1:
        return ""
    return (
        f"stream_interval={interval} and {_objectives(settings)}: objectives and metrics are of "
        f"the engine's tokens; clients get {interval} at once, and see longer gaps"
    )


def _batch(settings: SarathiConfig) -> str:
    if settings.batch_setting is None:
        return _objectives(settings)
    return f"{settings.batch_setting}={settings.batch_tokens}"


def _objectives(settings: SarathiConfig) -> str:
    """The objectives that are set, or the preset where there are none."""
    objectives = settings.model_dump() | {"tbt_slo_ms": settings.gap_slo_ms}
    given = [f"{name}={value!r}" for name in SLO_FIELDS if (value := objectives[name]) is not None]
    return ", ".join(given) or f"preset={settings.preset!r}"
