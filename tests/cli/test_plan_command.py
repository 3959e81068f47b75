"""``vllm-sarathi plan`` as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import output

LOAD = ("--workload", "fixed:800,10", "--requests", "60", "--rate", "30")
PLAN = (
    *("plan", "stock:512", "sarathi", "--model", "llama-3-8b", "--gpus", "a100", *LOAD),
    *("--seeds", "1", "--jobs", "1"),
)


def test_a_plan_ends_with_the_commands_to_paste(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    journal, plots, file = (tmp_path / name for name in ("journal", "plots", "plan.json"))
    extra = (
        "--tbt-slo-ms",
        "60",
        "--resume",
        str(journal),
        "--plots",
        str(plots),
        "--json",
        str(file),
    )
    code, out, _ = output(capsys, *PLAN, *extra)
    assert code == 0
    commands = [line for line in out.splitlines() if line.startswith("vllm serve")]
    assert len(commands) == 2
    assert out.startswith("Load: fixed-800-10, 30 requests/s.\n")
    assert "--scheduler sarathi --sarathi-tbt-slo-ms 60" in out
    assert "replicas behind a round-robin router" in out or "# one replica" in out
    assert "vllm serve meta-llama/Llama-3.1-8B-Instruct " in out
    assert [path.name for path in plots.iterdir()] == ["plan.png"]
    written = json.loads(file.read_text())
    assert written["results"]["options"][0]["status"] == "serves"
    assert written["provenance"]["prices"]["a100"]["source"]
    assert "a100 tp1 pp1" not in written["results"]["not_possible"]
    again = output(capsys, *PLAN, *extra)
    assert again[:2] == (code, out)


def test_where_nothing_serves_the_load_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = output(capsys, *PLAN, "--ttft-slo-ms", "1")
    assert code == 1
    assert "Nothing was found that serves the load" in out
    assert out.count("none found") > 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--gpus", "h300"], "--gpus 'h300' must be one of a100, "),
        (["--prices", "nowhere.csv"], "prices 'nowhere.csv' cannot be read"),
        (
            ["--gpus", "l4", "--max-model-len", "9000000"],
            "max_model_len=9000000 must be at most 32768",
        ),
        (["--gpus", "l4", "--model", "deepseek-v3"], "can be served on none of the GPUs"),
    ],
)
def test_wrong_options_are_refused(
    wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = output(capsys, *PLAN, *wrong)
    assert code == 2
    assert message in error


def test_a_journal_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, error = output(capsys, *PLAN, "--resume", str(tmp_path / "no" / "journal"))
    assert code == 2
    assert "--resume" in error
