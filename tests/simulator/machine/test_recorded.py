from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.recorded import record
from vllm_sarathi.simulator import deployment
from vllm_sarathi.simulator.load.recording import Recording, read_recording
from vllm_sarathi.simulator.machine.recorded import calibrated


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    record(tmp_path / "steps.jsonl", deployment("a100-llama-3-8b"))
    return read_recording(tmp_path / "steps.jsonl")


def test_a_log_tells_its_machine(recording: Recording) -> None:
    found, noise = calibrated(recording)
    assert (found.num_kv_tokens, found.max_model_len) == (
        recording.begin.num_kv_tokens,
        recording.begin.max_model_len,
    )
    assert noise < 0.05


def test_a_log_of_groups_with_windows_tells_a_machine_that_holds_the_longest_request(
    tmp_path: Path,
) -> None:
    windows = (64, 64, None)
    small = replace(
        deployment("a100-llama-3-8b"),
        num_kv_tokens=24_000,
        max_model_len=32_768,
        kv_windows=windows,
    )
    record(tmp_path / "steps.jsonl", small)
    found, _ = calibrated(read_recording(tmp_path / "steps.jsonl"))
    assert (found.num_kv_tokens, found.kv_windows) == (24_000, windows)


def test_steps_take_on_average_what_they_took_and_vary_as_much(recording: Recording) -> None:
    random = np.random.default_rng(0)
    costs = [(work, cost_s * random.lognormal(0, 0.4)) for work, cost_s in recording.costs]
    found, noise = calibrated(replace(recording, costs=costs))
    (stage,) = found.stages
    predicted_s = sum(stage.step_s(work, 0) for work, _ in costs)
    assert predicted_s == pytest.approx(sum(cost_s for _, cost_s in costs), rel=0.06)
    assert 0.3 < noise < 0.5


@pytest.mark.parametrize(
    ("begin", "named"),
    [
        ({"num_stages": 2}, "num_stages=2"),
        ({"num_kv_tokens": None}, "num_kv_tokens=None"),
    ],
)
def test_logs_that_tell_no_machine_are_refused(
    recording: Recording, begin: dict[str, int | None], named: str
) -> None:
    for name, value in begin.items():
        setattr(recording.begin, name, value)
    with pytest.raises(ValueError, match=f"{named}.* --deployment"):
        calibrated(recording)
