"""What vLLM would refuse is refused by name."""

from typing import Any

import pytest

from vllm_sarathi.simulator import EngineSettings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens=0 must be a whole number"),
        ({"max_num_batched_tokens": "512"}, "max_num_batched_tokens='512' must be"),
        ({"max_num_seqs": 0}, "max_num_seqs=0 must be"),
        (
            {"max_num_batched_tokens": 16, "max_num_seqs": 256},
            "max_num_seqs=256 must be at most max_num_batched_tokens=16",
        ),
        ({"policy": "lifo"}, "policy='lifo' must be one of fcfs, priority"),
        ({"scheduler": ""}, "scheduler=''"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EngineSettings(**settings)


def test_a_small_budget_has_as_many_sequences_unless_told_otherwise() -> None:
    assert EngineSettings(max_num_batched_tokens=16).num_seqs == 16
    assert EngineSettings().num_seqs == 256
