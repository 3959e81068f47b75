"""Benchmarks keep what they measured, and say of which commit it is."""

import json
from pathlib import Path

import pytest
from support import runs
from support.runs import Runs

OURS = "PP 8, P:D 10, sarathi, 1000 requests"
TRACE = "PP 8, azure, sarathi, 1000 requests"


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an earlier run of two loads."""
    monkeypatch.setattr(runs, "provenance", lambda: {"commit": "new"})
    figures = {OURS: {"rate": 1, "commit": "old"}, TRACE: {"rate": 2, "commit": "old"}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"provenance": {"commit": "old"}, "runs": figures}))
    return path


def test_what_is_asked_for_is_measured_anew(output: Path) -> None:
    assert list(Runs(output, [OURS], resume=False).figures) == [TRACE]


def test_a_resumed_run_keeps_what_is_done(output: Path) -> None:
    assert list(Runs(output, [OURS], resume=True).figures) == [OURS, TRACE]


def test_runs_that_were_not_asked_for_stay_with_their_commit(output: Path) -> None:
    found = Runs(output, [OURS], resume=False)
    found.add(OURS, {"rate": 3})
    found.write_table("table")
    raw = json.loads(output.read_text())
    assert {key: figures["commit"] for key, figures in raw["runs"].items()} == {
        OURS: "new",
        TRACE: "old",
    }
    assert raw["earlier"] == [{"commit": "old"}]
    assert "old (1), new (1)" in output.with_suffix(".md").read_text()


def test_tables_show_what_was_asked_for_first_and_the_rest_after(output: Path) -> None:
    found = Runs(output, [OURS], resume=False)
    found.add(OURS, {"rate": 3})
    assert list(found.by_case()) == ["PP 8, P:D 10, 1000 requests", "PP 8, azure, 1000 requests"]


def test_seeds_of_a_case_come_together(tmp_path: Path) -> None:
    case, load = "h100-llama-3-8b, code, 50 ms", "250 requests or 30 s"
    keys = [f"{case}, 2048, {load}, seed {seed}" for seed in range(2)]
    found = Runs(tmp_path / "capacity.json", keys, resume=True)
    for key in keys:
        found.add(key, {"capacity_rps": 1.0})
    assert {
        name: {engine: len(seeds) for engine, seeds in engines.items()}
        for name, engines in found.by_case().items()
    } == {f"{case}, {load}": {"2048": 2}}
