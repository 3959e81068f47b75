"""Runs as rows of a CSV file."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vllm_sarathi.simulator.results.notes import ByEngine


def write_rows(by_engine: ByEngine, path: Path) -> None:
    """Write one row for each run: its engine and its figures, empty where undefined.

    Of a capacity the figures at it follow as ``at_capacity.NAME``, and what each condition came
    to as ``checks.NAME``.
    """
    rows = [
        {"engine": name, **dict(_flat(run))}
        for name, runs in by_engine.items()
        for run in runs
        if run is not None
    ]
    columns = dict.fromkeys(column for row in rows for column in row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name == "checks":
            yield from ((f"checks.{check['figure']}", check["value"]) for check in value)
        else:
            yield f"{prefix}{name}", value
