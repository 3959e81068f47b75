"""Recorded loads, read from files."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vllm_sarathi.simulator.workload import Lengths, PromptBlocks, Workload

CSV_COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
# vLLM's timed trace dataset (``vllm bench serve --dataset-name timed_trace``).
JSON_KEYS = ("timestamp", "input_length", "output_length")
HASH_KEY = "hash_ids"


class Row(NamedTuple):
    """One request of a trace."""

    arrival_s: float
    num_prompt: int
    num_output: int
    hash_ids: tuple[int, ...] = ()


def read_trace(
    path: str | Path,
    max_requests: int | None = None,
    *,
    time_unit_s: float = 1.0,
    hash_tokens: int = 16,
) -> Workload:
    """Read a trace.

    A ``.csv`` has the columns ``arrived_at`` (seconds), ``num_prefill_tokens`` and
    ``num_decode_tokens``. A ``.jsonl`` has vLLM's timed-trace keys on each line:
    ``timestamp``, ``input_length``, ``output_length`` and, where prompts share
    prefixes, ``hash_ids``. Rows are sorted by time, and time starts at the first.

    Args:
        path: the file.
        max_requests: read no more than so many rows; None reads all.
        time_unit_s: seconds in a unit of the trace's times (0.001 for milliseconds).
        hash_tokens: prompt tokens that one of ``hash_ids`` stands for.

    Raises:
        ValueError: names the file, the line, the value and what is allowed.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix not in readers:
        raise ValueError(f"trace {str(path)!r} must end in {' or '.join(readers)}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(_limited(readers[path.suffix](file), path, max_requests))
    except OSError as error:
        raise ValueError(f"trace {str(path)!r} cannot be read: {error.strerror}") from error
    if not rows:
        raise ValueError(f"trace {str(path)!r} holds no request")
    rows.sort(key=lambda row: row.arrival_s)
    times, prompts, outputs, hashes = zip(*rows, strict=True)
    arrival_s = (np.array(times, float) - times[0]) * time_unit_s
    blocks = PromptBlocks(hashes, hash_tokens) if any(hashes) else None
    return Workload(
        path.stem, arrival_s, Lengths(np.array(prompts), np.array(outputs), blocks=blocks)
    )


def _limited(
    rows: Iterable[tuple[int, dict[str, Any]]], path: Path, max_requests: int | None
) -> Iterator[Row]:
    for number, (line, fields) in enumerate(rows):
        if number == max_requests:
            return
        yield _row(fields, f"{path.name} line {line}")


def _csv_rows(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file)
    missing = set(CSV_COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise ValueError(
            f"trace header {reader.fieldnames} lacks {sorted(missing)}; "
            f"it must have {', '.join(CSV_COLUMNS)}"
        )
    for fields in reader:
        yield reader.line_num, {name: fields[name] for name in CSV_COLUMNS}


def _json_rows(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
            values = [fields[name] for name in JSON_KEYS]
            hash_ids = tuple(int(i) for i in fields.get(HASH_KEY, ()))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"trace line {line}: {text.strip()[:80]!r} must be a JSON object with "
                f"{', '.join(JSON_KEYS)} ({error!r})"
            ) from error
        yield line, {**dict(zip(CSV_COLUMNS, values, strict=True)), HASH_KEY: hash_ids}


def _row(fields: dict[str, Any], where: str) -> Row:
    """Check one row's values."""
    values: list[Any] = []
    for name, kind, least in zip(CSV_COLUMNS, (float, int, int), (0, 1, 1), strict=True):
        try:
            value = kind(fields[name])
        except (ValueError, TypeError):
            value = None
        if value is None or not least <= value < float("inf"):
            raise ValueError(
                f"trace {where}: {name}={fields[name]!r} must be a"
                f"{' whole' if kind is int else ''} number of {least} or more"
            )
        values.append(value)
    time_s, num_prompt, num_output = values
    return Row(time_s, num_prompt, num_output, fields.get(HASH_KEY, ()))
