"""The forms that recorded loads have in files, told by their columns."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite
from typing import Any, NamedTuple, TextIO

HASH_KEY = "hash_ids"
# Prompt tokens that an id stands for: vLLM's blocks, and Mooncake's.
BLOCK_TOKENS, MOONCAKE_TOKENS = 16, 512
# More than any model takes.
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Form:
    """A form of traces.

    Args:
        name: what errors call it.
        columns: a request's arrival, prompt tokens and output tokens.
        has_unit: whether the file leaves open what a unit of its times is.
    """

    name: str
    columns: tuple[str, str, str]
    has_unit: bool = True


PLAIN = Form("a plain trace", ("arrived_at", "num_prefill_tokens", "num_decode_tokens"))
# ``vllm bench serve --dataset-name timed_trace``, guidellm's traces and Mooncake's.
TIMED = Form("a timed trace", ("timestamp", "input_length", "output_length"))
# Azure's public traces of 2023 and 2024.
AZURE = Form("Azure's trace", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), has_unit=False)
# The report of ``guidellm benchmark``: each request, as it was sent.
GUIDELLM = Form(
    "guidellm's report", ("request_start_time", "prompt_tokens", "output_tokens"), False
)
CSV_FORMS = (PLAIN, TIMED, AZURE)


class Row(NamedTuple):
    """One request of a trace."""

    arrival: float
    num_prompt: int
    num_output: int
    hash_ids: tuple[int, ...]
    where: str


Rows = Iterator[tuple[Form, Row]]


def _csv_rows(file: TextIO, where: str) -> Rows:
    reader = csv.DictReader(file)
    try:
        names = reader.fieldnames or ()
        form = next((one for one in CSV_FORMS if set(one.columns) <= set(names)), None)
        if form is None:
            allowed = " or ".join(", ".join(one.columns) for one in CSV_FORMS)
            raise ValueError(f"{where} line 1: header {reader.fieldnames} must have {allowed}")
        for fields in reader:
            line = f"{where} line {reader.line_num}"
            hash_ids = _csv_hash_ids(fields, line) if form is TIMED else ()
            yield form, _row(form, fields, line, hash_ids)
    except csv.Error as error:
        raise ValueError(f"{where} line {reader.line_num + 1} must be CSV: {error}") from error


def _csv_hash_ids(fields: dict[str, Any], line: str) -> tuple[int, ...]:
    """The ids of a row, which a CSV file holds as a JSON list; none where it has no such column."""
    text = fields.get(HASH_KEY) or "[]"
    try:
        return _hash_ids(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f"{line}: {HASH_KEY}={text[:80]!r} must be a JSON list of whole numbers"
        ) from None


def _hash_ids(values: Iterable[Any]) -> tuple[int, ...]:
    hash_ids = tuple(values)
    if not all(type(one) is int for one in hash_ids):
        raise ValueError(f"{HASH_KEY} must be whole numbers")
    return hash_ids


def _json_rows(file: TextIO, where: str) -> Rows:
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        line = f"{where} line {number}"
        try:
            fields = json.loads(text)
            values = {name: fields[name] for name in TIMED.columns}
            hash_ids = _hash_ids(fields.get(HASH_KEY, ()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{line}: {text.strip()[:80]!r} must be a JSON object with "
                f"{', '.join(TIMED.columns)} ({error!r})"
            ) from error
        yield TIMED, _row(TIMED, values, line, hash_ids)


def _report_rows(file: TextIO, where: str) -> Rows:
    """The requests of a guidellm report that were served."""
    try:
        (benchmark,) = json.load(file)["benchmarks"]
        requests = benchmark["requests"]["successful"]
        num = int(benchmark["metrics"]["request_totals"]["successful"])
        fields = [{name: one[name] for name in GUIDELLM.columns} for one in requests]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{where} must be the report of one guidellm benchmark, whose requests have "
            f"{', '.join(GUIDELLM.columns)} ({error!r})"
        ) from error
    if num > len(fields):
        raise ValueError(
            f"{where} holds {len(fields)} of {num} requests; it must hold all: run guidellm "
            "without --sample-requests"
        )
    for number, one in enumerate(fields, 1):
        yield GUIDELLM, _row(GUIDELLM, one, f"{where} request {number}")


READERS: dict[str, Callable[[TextIO, str], Rows]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".json": _report_rows,
}


def _row(form: Form, fields: dict[str, Any], where: str, hash_ids: tuple[int, ...] = ()) -> Row:
    """Check one request's values."""
    arrival, prompt, output = form.columns
    if form is AZURE:
        time = _date_s(fields[arrival], f"{where}: {arrival}")
    else:
        time = _checked(fields[arrival], f"{where}: {arrival}", 0, inf)
    num_prompt, num_output = (
        int(_checked(fields[name], f"{where}: {name}", 1, MOST_TOKENS)) for name in (prompt, output)
    )
    return Row(time, num_prompt, num_output, hash_ids, where)


def _checked(value: Any, name: str, least: int, most: float) -> float:
    """A number within limits, a whole one if there is an upper limit."""
    number, is_whole = _number(value), most < inf
    if number is None or not least <= number <= most or (is_whole and not number.is_integer()):
        allowed = f"whole number from {least} to {most}" if is_whole else f"number from {least} on"
        raise ValueError(f"{name}={value!r} must be a {allowed}")
    return number


def _number(value: Any) -> float | None:
    """A finite number; None for anything else, a boolean included."""
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (ValueError, TypeError, OverflowError):
        return None
    return number if isfinite(number) else None


def _date_s(value: Any, name: str) -> float:
    """A date as seconds since the epoch, in UTC unless it says otherwise."""
    try:
        date = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise ValueError(
            f"{name}={value!r} must be a date like 2023-11-16 18:17:03.9799600"
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def block_tokens(rows: Iterable[Row]) -> int | None:
    """Prompt tokens that one of the rows' hash ids stands for, where their number tells.

    Each prompt has an id for every block that it begins.
    """
    hashed = [row for row in rows if row.hash_ids]
    for size in (BLOCK_TOKENS, MOONCAKE_TOKENS):
        if hashed and all(len(row.hash_ids) == -(-row.num_prompt // size) for row in hashed):
            return size
    return None
