import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import output
from tests.support.recorded import record
from tests.support.step_log import BEGIN, placed, step, write_log
from vllm_sarathi.simulator import deployment


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a stock server on a fast GPU."""
    found = tmp_path_factory.mktemp("log") / "steps.jsonl"
    record(found, deployment("a100-llama-3-8b"), max_num_batched_tokens=512)
    return found


@pytest.fixture
def replay(path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*arguments: str) -> dict[str, Any]:
        code, out, _ = output(capsys, "replay", str(path), *arguments, "--jobs=1", "--json")
        assert code == 0
        told: dict[str, Any] = json.loads(out)
        return told

    return run


def test_the_engine_that_recorded_is_simulated_to_what_was_recorded(
    replay: Callable[..., dict[str, Any]],
) -> None:
    told = replay()
    assert list(told["results"]) == ["recorded", "same, simulated"]
    (was,), (now,) = told["results"].values()
    for figure in ("ttft_p50_s", "ttft_p90_s", "tpot_p50_ms", "tbt_p50_ms", "e2e_p50_s"):
        assert now[figure] == pytest.approx(was[figure], rel=0.1), figure
    engine = told["provenance"]["engines"]["same, simulated"]
    assert (engine["scheduler"], engine["max_num_batched_tokens"]) == ("stock", 512)
    assert told["provenance"]["left_out"] == {"running_before": 0, "unfinished": 0, "shed": 0}


def test_other_settings_are_told_what_they_are_measured_by(
    replay: Callable[..., dict[str, Any]],
) -> None:
    told = replay("stock:128", "sarathi", "--goodput", "ttft:1000", "tpot:20")
    assert list(told["results"])[2:] == ["stock:128", "sarathi"]
    engines = told["provenance"]["engines"]
    assert engines["stock:128"]["max_num_seqs"] == 128
    assert engines["sarathi"]["max_num_batched_tokens"] == 512
    assert engines["sarathi"]["sarathi"] == {"ttft_slo_ms": 1000, "tpot_slo_ms": 20}
    assert all(run["goodput"] is not None for (run,) in told["results"].values())


def test_the_table_has_recorded_figures_first_and_says_how_far_off_they_are(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = output(capsys, "replay", str(path), "stock:128", "--jobs=1")
    assert code == 0
    header = [cell.strip() for cell in out.splitlines()[0].split("|")]
    assert header[1:-1] == ["figure", "recorded", "same, simulated", "stock:128"]
    assert "60 requests are replayed." in out
    assert "same, simulated: stock:512,max_num_seqs=256." in out
    assert "latencies are off by" in out


def test_an_engine_of_ours_is_simulated_with_its_own_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, settings = tmp_path / "s.jsonl", {"preset": "slo", "tbt_slo_ms": 30.0}
    record(log, deployment("a100-llama-3-8b"), settings=settings)
    _, out, _ = output(capsys, "replay", str(log), "--jobs=1", "--json")
    engine = json.loads(out)["provenance"]["engines"]["same, simulated"]
    assert (engine["scheduler"], engine["sarathi"]) == ("sarathi", {"tbt_slo_ms": 30.0})


def test_an_engine_that_serves_by_priority_is_simulated_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "s.jsonl"
    record(log, deployment("a100-llama-3-8b"), policy="priority")
    _, out, _ = output(capsys, "replay", str(log), "stock", "--jobs=1", "--json")
    engines = json.loads(out)["provenance"]["engines"]
    assert [engines[name]["policy"] for name in ("same, simulated", "stock")] == ["priority"] * 2


def test_what_was_recorded_is_written_beside_what_was_simulated(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output(capsys, "replay", str(path), "--jobs=1", "--bench-json", str(tmp_path))
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert [one["label"] for one in saved] == ["recorded", "same, simulated"]
    assert saved[0]["request_rate"] == pytest.approx(20, rel=0.3)


def test_a_log_without_its_beginning_needs_engines(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(path.read_text().splitlines(keepends=True)[5:]))
    machine = ["--deployment", "a100-llama-3-8b", "--jobs=1"]
    code, _, err = output(capsys, "replay", str(cut), *machine)
    assert code == 2
    assert "lacks its beginning" in err
    code, out, _ = output(capsys, "replay", str(cut), "stock", *machine)
    assert code == 0
    assert "came before the log began" in out


def test_a_log_that_lacks_its_machine_needs_a_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {"arrived_s": 1_700_000_000.0, "num_prompt_tokens": 9, "num_output_tokens": 2}
    ended = request | {"ttft_s": 0.1, "e2e_s": 0.2}
    log = write_log(tmp_path / "s.jsonl", BEGIN, *placed([step(requests=[ended])]))
    code, _, err = output(capsys, "replay", str(log))
    assert code == 2
    assert "num_kv_tokens=None" in err
    assert output(capsys, "replay", str(log), "--deployment", "a100-llama-3-8b")[0] == 0
