import csv
from pathlib import Path

from vllm_sarathi.simulator.results.notes import ByEngine
from vllm_sarathi.simulator.results.rows import write_rows


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_run_is_a_row_and_what_is_undefined_is_empty(tmp_path: Path) -> None:
    runs: ByEngine = {
        "a": [{"seed": 0, "goodput": None}, None],
        "b": [{"seed": 0, "goodput": 0.5}, {"seed": 1, "error": "no"}],
    }
    write_rows(runs, tmp_path / "runs.csv")
    assert read(tmp_path / "runs.csv") == [
        {"engine": "a", "seed": "0", "goodput": "", "error": ""},
        {"engine": "b", "seed": "0", "goodput": "0.5", "error": ""},
        {"engine": "b", "seed": "1", "goodput": "", "error": "no"},
    ]


def test_a_capacity_has_its_checks_and_the_figures_at_it(tmp_path: Path) -> None:
    checks = [{"figure": "tbt_p99_ms", "limit": 50.0, "value": 49.0}]
    run = {"capacity_rps": 2.0, "checks": checks, "at_capacity": {"steps": 9}}
    write_rows({"a": [run]}, tmp_path / "runs.csv")
    assert read(tmp_path / "runs.csv") == [
        {
            "engine": "a",
            "capacity_rps": "2.0",
            "checks.tbt_p99_ms": "49.0",
            "at_capacity.steps": "9",
        }
    ]
