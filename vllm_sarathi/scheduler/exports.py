"""Makes an engine core's metrics and sends them out: /metrics, the log, a port."""

import weakref
from collections.abc import Sequence
from typing import Any

from vllm import envs

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.catalogue import PREFIX
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.metrics.replier import reply_to_scrapes
from vllm_sarathi.metrics.scrape_port import serve_metrics
from vllm_sarathi.metrics.summary import log_regularly
from vllm_sarathi.objectives import RequestObjectives


def recorder_of(
    scheduler: Any, settings: SarathiConfig, classes: Sequence[RequestObjectives]
) -> StepRecorder | None:
    """The metrics of a scheduler, on their way out for as long as the recorder lives.

    Args:
        scheduler: a vLLM ``Scheduler``.
        settings: the settings.
        classes: objectives of the classes, first of requests that say nothing.

    Returns:
        None if vLLM's statistics are off.
    """
    if not scheduler.log_stats:
        return None
    config = scheduler.vllm_config
    name, rank = config.model_config.served_model_name, config.parallel_config.data_parallel_index
    served = name[0] if isinstance(name, list) else name
    recorder = StepRecorder(settings.model_dump(), served, rank, classes)
    registry = recorder.catalogue.registry
    ends = [
        reply_to_scrapes(registry, f"engine-{rank}"),
        log_regularly(registry, PREFIX, getattr(envs, "VLLM_LOG_STATS_INTERVAL", 10.0)),
    ]
    if settings.metrics_port is not None:
        port = settings.metrics_port + rank
        ends.append(serve_metrics(registry, settings.metrics_host, port))
    for end in ends:
        weakref.finalize(recorder, end).atexit = False  # their threads end with the process
    return recorder
