"""Objectives beside speculative decoding: a step brings a decode several tokens."""

from typing import Any

import pytest

from vllm_sarathi.simulator import (
    EngineSettings,
    Fixed,
    Objectives,
    Report,
    Speculation,
    Synthetic,
    deployment,
    simulate,
)

OBJECTIVES = Objectives(ttft_s=2.0, tpot_s=0.05)
TOLD = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50}


def decodes(rate: float, scheduler: str, settings: dict[str, Any]) -> Report:
    """Short prompts and long answers, of whose drafts 70% are accepted."""
    engine = EngineSettings(scheduler, settings, speculation=Speculation(3, 0.7, draft_s=0.001))
    workload = Synthetic(Fixed(16, 512), round(15 * rate)).at(rate, 0)
    return simulate(engine, deployment("a100-llama-3-8b"), workload)


@pytest.mark.parametrize(("rate", "more"), [(20.0, 0.0), (40.0, 0.1)])
def test_a_pace_admits_as_many_as_drafts_let_decode_in_time(rate: float, more: float) -> None:
    ours = decodes(rate, "sarathi", TOLD).goodput(OBJECTIVES)
    stock = decodes(rate, "stock", {}).goodput(OBJECTIVES)
    assert ours is not None
    assert stock is not None
    assert ours >= stock + more


def test_in_overload_the_mean_pace_is_kept() -> None:
    tpot_s = decodes(60.0, "sarathi", TOLD).percentile("tpot_s", 99)
    assert tpot_s is not None
    assert tpot_s <= 0.05
