from collections.abc import Callable

import pytest

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    Fixed,
    Synthetic,
    simulate,
)


@pytest.mark.parametrize(
    "name",
    [
        "nowhere.Class",
        "vllm.nothing",
        "plain",
        "json.dumps",
        "builtins.int",
        "collections.OrderedDict",
        "vllm.LLM",
        "vllm.v1.core.sched.interface.SchedulerInterface",
    ],
)
def test_schedulers_that_cannot_be_used_are_named(
    machine: Callable[..., Deployment], name: str
) -> None:
    with pytest.raises(ValueError, match=f"scheduler='{name}'"):
        simulate(EngineSettings(name), machine(), Synthetic(Fixed(1, 1), 1).at(1, 0))
