from collections.abc import Callable

import pytest

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Speculation,
    Workload,
)
from vllm_sarathi.simulator.engine import shortcuts

SCHEDULERS = ["stock", "sarathi"]


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("num_kv_tokens", [4_000, 100_000])
@pytest.mark.parametrize("speculation", [None, Speculation(3, 0.7)])
def test_shortcuts_change_no_batch(
    monkeypatch: pytest.MonkeyPatch,
    machine: Callable[..., Deployment],
    mixed: Callable[..., Workload],
    batches: Callable[..., list[str]],
    scheduler: str,
    asynchronous: bool,
    caching: bool,
    num_kv_tokens: int,
    speculation: Speculation | None,
) -> None:
    engine = EngineSettings(
        scheduler,
        async_scheduling=asynchronous,
        enable_prefix_caching=caching,
        max_num_batched_tokens=512,
        speculation=speculation,
    )
    options = {"deployment": machine(num_kv_tokens=num_kv_tokens, max_model_len=2048)}
    short = batches(engine, mixed(40, rate=50), **options)
    monkeypatch.setattr(shortcuts, "install", lambda scheduler: None)
    assert batches(engine, mixed(40, rate=50), **options) == short
