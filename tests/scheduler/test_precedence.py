"""What the log says at start where a setting of vLLM's and one of ours limit the same thing."""

from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import SarathiScheduler
from vllm_sarathi.scheduler import mixin


def warned(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any] | None = None, **engine_args: Any
) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(mixin.logger, "warning", lambda text, *values: found.append(text % values))
    SchedulerLoop(SarathiScheduler, settings, **engine_args)
    return found


@pytest.mark.parametrize(
    ("given", "settings", "both", "winner"),
    [
        ({"long_prefill_token_threshold": 64}, {"preset": "stall-free"},
         ("long_prefill_token_threshold=64", "token_budget=512"),
         "no chunk is longer than the threshold"),
        ({"long_prefill_token_threshold": 64}, {"tbt_slo_ms": 50.0},
         ("long_prefill_token_threshold=64", "tbt_slo_ms=50.0"),
         "no chunk is longer than the threshold"),
        ({"prefill_schedule_interval": 4}, {"ttft_slo_ms": 2000.0},
         ("prefill_schedule_interval=4", "ttft_slo_ms=2000.0"), "the interval wins"),
        ({"max_num_active_seqs": 8}, {}, ("max_num_active_seqs=8", "tbt_slo_ms='auto'"),
         "the smaller number of running requests wins"),
        ({"max_num_queued_reqs": 9}, {"shed": True}, ("max_num_queued_reqs=9", "shed=True"),
         "vLLM's limits win"),
        ({"stream_interval": 5}, {"preset": "offline"},
         ("stream_interval=5", "preset='offline'"), "clients get 5 at once"),
        ({"stream_interval": 5}, {}, ("stream_interval=5", "tbt_slo_ms='auto'"),
         "clients get 5 at once"),
    ],
)  # fmt: skip
def test_it_names_both_settings_and_which_wins(
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any], settings: dict[str, Any], both: tuple[str, str], winner: str,
) -> None:  # fmt: skip
    if any(name not in EngineArgs.__dataclass_fields__ for name in given):
        pytest.skip("this vLLM has no such setting")
    (line,) = warned(monkeypatch, settings, **given)
    assert all(setting in line for setting in both)
    assert winner in line


def test_it_says_nothing_where_vllms_settings_are_its_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warned(monkeypatch, {"ttft_slo_ms": 100.0}) == []


def test_it_says_nothing_where_vllm_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned(monkeypatch, {"preset": "observe"}, long_prefill_token_threshold=64) == []


def test_no_chunk_is_longer_than_the_threshold_or_the_budget_as_the_log_says() -> None:
    settings = {"preset": "stall-free", "token_budget": 100}
    loop = SchedulerLoop(SarathiScheduler, settings, long_prefill_token_threshold=64)
    loop.add("first", 128, max_tokens=1)
    loop.add("second", 128, max_tokens=1)
    loop.step()
    assert loop.batches == ["P64 P36"]
