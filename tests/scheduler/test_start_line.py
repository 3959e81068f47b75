from typing import Any

import pytest

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.objectives import ObjectivesReader
from vllm_sarathi.scheduler.start_line import start_line


def line(settings: dict[str, Any], ours: type = SarathiScheduler) -> str:
    scheduler = SchedulerLoop(ours, settings).scheduler
    config = SarathiConfig.from_mapping(settings)
    return start_line(scheduler, config, ObjectivesReader(config).default)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "batches bound by objectives, at most max_num_batched_tokens=2048"),
        ({}, "preset='slo' (default)"),
        ({}, "tbt_slo_ms='auto' (default: 5 decode-only steps)"),
        ({}, "order='hybrid' (from preset='slo')"),
        ({}, "tile_size='auto' (default: learned)"),
        ({}, "balance_micro_batches=False (from pipeline_parallel_size=1)"),
        ({"tbt_slo_ms": 50.0}, "tbt_slo_ms=50.0 (set)"),
        ({"tpot_slo_ms": 50.0}, "tbt_slo_ms='auto' (default: off beside other objectives)"),
        ({"tpot_slo_ms": 50.0}, "max_stall_ms=500.0 (from tpot_slo_ms)"),
        ({"preset": "stall-free"}, "batches bound by token_budget=512, at most"),
        ({"preset": "stall-free"}, "token_budget=512 (default)"),
        ({"preset": "stall-free"}, "tile_size=None (default: no rounding under"),
        ({"preset": "stall-free", "order": "edf"}, "order='edf' (set)"),
        ({"preset": "offline"}, "order='prefix' (from preset='offline')"),
        ({"preset": "offline"}, "batches bound by step times"),
        ({"order": "mlfq"}, "tbt_slo_ms=None (from order='mlfq')"),
        ({"preset": "decode-maximal"}, "batches bound by chunk_size=256, at most"),
        ({"preset": "decode-maximal"}, "tile_size=128 (default: 128, at most chunk_size)"),
        ({"preset": "observe"}, "batches bound by vLLM alone, max_num_batched_tokens=2048"),
    ],
)
def test_the_line_says_what_a_setting_comes_to_and_why(
    settings: dict[str, Any], words: str
) -> None:
    assert words in line(settings)


def test_the_line_names_the_class_and_why_it_is_that() -> None:
    assert line({}).startswith("SarathiScheduler (async_scheduling=False); ")
    assert line({}, AsyncSarathiScheduler).startswith(
        "AsyncSarathiScheduler (async_scheduling=True); "
    )


def test_settings_that_the_preset_does_not_have_are_left_out() -> None:
    assert "token_budget=" not in line({})
    assert "tbt_slo_ms=" not in line({"preset": "stall-free"})
