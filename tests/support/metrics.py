"""What a scheduler's metrics show."""

from typing import Any

from prometheus_client import CollectorRegistry

from tests.support.scheduler_loop import SchedulerLoop


def found(loop: SchedulerLoop, name: str, **labels: str) -> float | None:
    """A sample by its name without the prefix and its further labels; None if it is not there."""
    scheduler: Any = loop.scheduler
    registry: CollectorRegistry = scheduler._recorder.catalogue.registry
    model = scheduler.vllm_config.model_config.served_model_name
    labels = {"engine": "0", "model_name": model, **labels}
    return registry.get_sample_value(f"vllm_sarathi:{name}", labels)


def sample(loop: SchedulerLoop, name: str, **labels: str) -> float:
    """The same of a sample that must be there."""
    value = found(loop, name, **labels)
    assert value is not None, name
    return value
