"""Recorded loads, read from files."""

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vllm_sarathi.simulator.load.workload import Lengths, PromptBlocks, Workload

CSV_COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
# vLLM's timed trace dataset (``vllm bench serve --dataset-name timed_trace``).
JSON_KEYS = ("timestamp", "input_length", "output_length")
HASH_KEY = "hash_ids"
# More than any model takes.
MOST_TOKENS = 1_000_000_000


class Row(NamedTuple):
    """One request of a trace."""

    arrival_s: float
    num_prompt: int
    num_output: int
    hash_ids: tuple[int, ...]
    where: str


def read_trace(
    path: str | Path,
    num_requests: int | None = None,
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
        num_requests: read so many rows, the first of the file; None reads all.
        time_unit_s: seconds in a unit of the trace's times (0.001 for milliseconds).
        hash_tokens: prompt tokens that one of ``hash_ids`` stands for.

    Raises:
        ValueError: names the file, the line, the value and what is allowed.
    """
    path = Path(path)
    rows = sorted(_rows(path, num_requests), key=lambda row: row.arrival_s)
    if not rows:
        raise ValueError(f"trace {str(path)!r} holds no request")
    if num_requests is not None and len(rows) < num_requests:
        raise ValueError(
            f"num_requests={num_requests} must be at most {len(rows)}, which trace "
            f"{str(path)!r} holds"
        )
    times, prompts, outputs, hashes, where = zip(*rows, strict=True)
    arrival_s = (np.array(times, float) - times[0]) * time_unit_s
    blocks = PromptBlocks(hashes, hash_tokens) if any(hashes) else None
    lengths = Lengths(np.array(prompts), np.array(outputs), blocks=blocks)
    return Workload(path.stem, arrival_s, lengths, where=where)


def _rows(path: Path, num_requests: int | None) -> list[Row]:
    """The rows in the file's order."""
    if path.suffix not in READERS:
        raise ValueError(f"trace {str(path)!r} must end in {' or '.join(READERS)}")
    try:
        # Spreadsheets begin a file with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = READERS[path.suffix](file, f"trace {path.name} line")
            return [_row(fields, where) for fields, where in islice(rows, num_requests)]
    except OSError as error:
        raise ValueError(f"trace {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"trace {str(path)!r} must be UTF-8: {error}") from error


def _csv_rows(file: Iterable[str], where: str) -> Iterator[tuple[dict[str, Any], str]]:
    reader = csv.DictReader(file)
    try:
        missing = set(CSV_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{where} 1: header {reader.fieldnames} lacks {sorted(missing)}; "
                f"it must have {', '.join(CSV_COLUMNS)}"
            )
        for fields in reader:
            yield fields, f"{where} {reader.line_num}"
    except csv.Error as error:
        raise ValueError(f"{where} {reader.line_num + 1} must be CSV: {error}") from error


def _json_rows(file: Iterable[str], where: str) -> Iterator[tuple[dict[str, Any], str]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
            values = [fields[name] for name in JSON_KEYS]
            hash_ids = tuple(fields.get(HASH_KEY, ()))
            if not all(type(one) is int for one in hash_ids):
                raise ValueError(f"{HASH_KEY} must be whole numbers")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{where} {line}: {text.strip()[:80]!r} must be a JSON object with "
                f"{', '.join(JSON_KEYS)} ({error!r})"
            ) from error
        row = {**dict(zip(CSV_COLUMNS, values, strict=True)), HASH_KEY: hash_ids}
        yield row, f"{where} {line}"


READERS = {".csv": _csv_rows, ".jsonl": _json_rows}


def _row(fields: dict[str, Any], where: str) -> Row:
    """Check one row's values."""
    values = []
    for name, least, most in zip(CSV_COLUMNS, (0, 1, 1), (inf, *2 * [MOST_TOKENS]), strict=True):
        value, whole = _number(fields[name]), most < inf
        if value is None or not least <= value <= most or (whole and not value.is_integer()):
            allowed = f"whole number from {least} to {most}" if whole else f"number from {least} on"
            raise ValueError(f"{where}: {name}={fields[name]!r} must be a {allowed}")
        values.append(value)
    time_s, num_prompt, num_output = values
    return Row(time_s, int(num_prompt), int(num_output), fields.get(HASH_KEY, ()), where)


def _number(value: Any) -> float | None:
    """A finite number; None for anything else, a boolean included."""
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (ValueError, TypeError, OverflowError):
        return None
    return number if isfinite(number) else None
