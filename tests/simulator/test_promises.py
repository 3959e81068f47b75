"""What the scheduler promises, in virtual time on a GPU: 2% noise on every step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.step_log import logged_steps
from vllm_sarathi.simulator import (
    LENGTHS,
    EngineSettings,
    Fixed,
    Report,
    Synthetic,
    Workload,
    Zipf,
    deployment,
    simulate,
)

NOISE = 0.02
A100 = "a100-llama-3-8b"


def ours(
    num_batched_tokens: int = 8192, max_num_seqs: int = 256, **settings: object
) -> EngineSettings:
    return EngineSettings("sarathi", settings, num_batched_tokens, max_num_seqs=max_num_seqs)


def run(engine: EngineSettings, workload: Workload, name: str = A100, stages: int = 1) -> Report:
    machine = replace(deployment(name, stages), max_model_len=131_072)
    report = simulate(engine, machine, workload, noise=NOISE)
    assert report.completed
    return report


def figure(report: Report, metric: str, percent: float) -> float:
    """A percentile that is defined."""
    value = report.percentile(metric, percent)
    assert value is not None
    return value


@pytest.mark.parametrize("tbt_ms", [50, 100])
def test_the_objective_holds_through_a_100k_prompt(tbt_ms: float) -> None:
    load = Synthetic(LENGTHS["long-among-short"], 60).at(0.5, seed=0)
    assert load.lengths.num_prompt.max() == 100_000
    report = run(ours(tbt_slo_ms=tbt_ms), load, "h100-llama-3-8b")
    assert figure(report, "tbt_s", 99) <= tbt_ms / 1e3


def test_decodes_sit_batches_out_and_their_tokens_come_in_time(tmp_path: Path) -> None:
    step_log = tmp_path / "steps.jsonl"
    load = Synthetic(LENGTHS["code"], 300).at(20.0, seed=0)
    report = run(ours(tbt_slo_ms=50, step_log=str(step_log)), load, "h100-llama-3-8b")
    steps = logged_steps(step_log)
    assert sum(step["num_decodes_paused"] > 0 for step in steps) > len(steps) / 10
    assert figure(report, "tbt_s", 99) <= 0.050


@pytest.mark.parametrize("load", ["sharegpt", "arxiv"])
def test_after_200_steps_nine_in_ten_predictions_are_within_a_tenth(
    load: str, tmp_path: Path
) -> None:
    step_log = tmp_path / "steps.jsonl"
    workload = Synthetic(LENGTHS[load], 60).at(1.0, seed=0)
    run(ours(tbt_slo_ms=50, step_log=str(step_log)), workload)
    steps = logged_steps(step_log)[200:]
    errors = [
        abs(step["duration_s"] / step["predicted_s"] - 1) for step in steps if step["duration_s"]
    ]
    assert len(errors) > 1000
    assert np.quantile(errors, 0.9) < 0.10


LOADS = {
    "offline": Synthetic(LENGTHS["sharegpt"], 100, at_once=True),
    "decode-only": Synthetic(Fixed(16, 300), 100, at_once=True),
    "short prompts": Synthetic(Fixed(60, 60), 300),
    "prefix-cached": Synthetic(LENGTHS["agentic"], 20),
}


@pytest.mark.parametrize("load", LOADS)
def test_without_an_objective_it_is_as_fast_as_stock_vllm(load: str) -> None:
    workload = LOADS[load].at(20.0 if load == "short prompts" else 0.5, seed=0)
    theirs = run(EngineSettings(max_num_batched_tokens=2048), workload)
    mine = run(ours(2048, tbt_slo_ms=None), workload)
    assert mine.duration_s <= 1.01 * theirs.duration_s
    assert figure(mine, "ttft_s", 50) <= 1.02 * figure(theirs, "ttft_s", 50)
    assert mine.num_preemptions <= theirs.num_preemptions


def test_early_tokens_pay_for_a_long_gap_but_not_for_one_beyond_the_stall() -> None:
    load = Synthetic(LENGTHS["arxiv"], 60).at(1.0, seed=0)
    strict = run(ours(tbt_slo_ms=50), load)
    loose = run(ours(tbt_slo_ms=50, max_stall_ms=150), load)
    assert figure(loose, "tbt_s", 99) <= 0.150
    assert figure(loose, "ttft_s", 90) < figure(strict, "ttft_s", 90)


def test_a_pipeline_idles_far_less_than_under_stock_vllm() -> None:
    load = Synthetic(Zipf(10), 300, at_once=True).at(1, 0)
    theirs = run(EngineSettings(max_num_seqs=64), load, "a100-gpt-3-tp8-pp8", stages=8)
    mine = run(ours(max_num_seqs=64, tbt_slo_ms=None), load, "a100-gpt-3-tp8-pp8", stages=8)
    assert mine.duration_s < 0.8 * theirs.duration_s


def test_a_lone_long_prompt_fills_the_pipeline() -> None:
    load = Synthetic(Fixed(4000, 1), 1, at_once=True).at(1, 0)
    theirs = run(EngineSettings(max_num_batched_tokens=8192), load, "a100-gpt-3-tp8-pp8", 8)
    # The first prompts teach the model; the last one is alone.
    lessons = Synthetic(Fixed(4000, 1), 12).at(0.01, 0)
    mine = run(ours(tbt_slo_ms=None), lessons, "a100-gpt-3-tp8-pp8", 8)
    assert mine.per_request.ttft_s[-1] < 0.5 * theirs.per_request.ttft_s[-1]
