"""Contexts that fill the pace of those that run: among chats, and alone."""

from dataclasses import replace

import numpy as np
import pytest
from support.goodput_cases import Mixed

from vllm_sarathi.simulator import (
    LENGTHS,
    EngineSettings,
    Objectives,
    Report,
    Synthetic,
    Workload,
    deployment,
    simulate,
)

OBJECTIVES = Objectives(ttft_s=2.0, tpot_s=0.05)


def served(machine: str, workload: Workload) -> Report:
    settings = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50}
    engine = EngineSettings("sarathi", settings, max_num_batched_tokens=8192)
    return simulate(engine, replace(deployment(machine), max_model_len=131_072), workload)


@pytest.mark.parametrize("seed", [3, 6])
def test_contexts_that_do_not_fit_the_pace_hold_up_few_chats(seed: int) -> None:
    lengths = Mixed(LENGTHS["conversation"], LENGTHS["agentic"], 0.2)
    workload = Synthetic(lengths, 400).at(2.0, seed)
    report = served("a100-llama-3-8b", workload)
    ttft_s = report.per_request.ttft_s[workload.lengths.num_prompt < 20_000]
    assert (np.percentile(ttft_s, [95, 99]) < [2.0, 6.0]).all()
    assert report.completed


def test_agentic_turns_far_beyond_capacity_are_in_time_one_in_five() -> None:
    report = served("h100-llama-3-8b", Synthetic(LENGTHS["agentic"], 200).at(2.0, 1))
    assert report.met(OBJECTIVES).mean() > 0.2
    assert report.completed
