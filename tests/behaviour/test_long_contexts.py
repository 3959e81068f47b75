"""Contexts that fill the pace of those that run, among chats."""

from dataclasses import replace

import numpy as np
from support.goodput_cases import Mixed

from vllm_sarathi.simulator import LENGTHS, EngineSettings, Synthetic, deployment, simulate


def test_contexts_that_do_not_fit_the_pace_hold_up_few_chats() -> None:
    lengths = Mixed(LENGTHS["conversation"], LENGTHS["agentic"], 0.2)
    workload = Synthetic(lengths, 400).at(2.0, 3)
    settings = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50}
    engine = EngineSettings("sarathi", settings, max_num_batched_tokens=8192)
    machine = replace(deployment("a100-llama-3-8b"), max_model_len=131_072)
    report = simulate(engine, machine, workload)
    is_chat = workload.lengths.num_prompt < 20_000
    assert np.percentile(report.per_request.ttft_s[is_chat], 95) < 2.0
    assert report.completed
