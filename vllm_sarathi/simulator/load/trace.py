"""Recorded loads, read from files."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from vllm_sarathi.simulator.load.trace_forms import (
    BLOCK_TOKENS,
    MOONCAKE_TOKENS,
    READERS,
    TIMED,
    Form,
    Row,
    block_tokens,
)
from vllm_sarathi.simulator.load.workload import Lengths, PromptBlocks, Workload


def read_trace(
    path: str | Path,
    num_requests: int | None = None,
    *,
    time_unit_s: float | None = None,
    hash_tokens: int | None = None,
) -> Workload:
    """Read a trace, whose form its columns tell.

    - ``.csv`` with ``arrived_at`` (seconds), ``num_prefill_tokens`` and ``num_decode_tokens``;
    - ``.csv`` or ``.jsonl`` with ``timestamp``, ``input_length``, ``output_length`` and, where
      prompts share prefixes, ``hash_ids``: vLLM's timed trace and guidellm's, in seconds, and
      Mooncake's, in milliseconds, where each id stands for 512 tokens;
    - ``.csv`` with ``TIMESTAMP``, ``ContextTokens`` and ``GeneratedTokens``: Azure's;
    - ``.json``: the report of one guidellm benchmark, of which requests that failed are left out.

    Rows are sorted by time, and time starts at the first.

    Args:
        path: the file.
        num_requests: read so many rows, the first of the file; None reads all.
        time_unit_s: seconds in a unit of the trace's times; None is what its form says.
        hash_tokens: prompt tokens that one of ``hash_ids`` stands for; None is what their
            number says. Where it says nothing, both are needed.

    Raises:
        ValueError: names the file, the line, the value and what is allowed.
    """
    path = Path(path)
    form, rows = _read(path, num_requests)
    rows.sort(key=lambda row: row.arrival)
    if num_requests is not None and len(rows) < num_requests:
        raise ValueError(
            f"num_requests={num_requests} must be at most {len(rows)}, which trace "
            f"{str(path)!r} holds"
        )
    if time_unit_s is not None and not form.has_unit:
        raise ValueError(
            f"time_unit_s={time_unit_s:g} has no effect on trace {str(path)!r}: times of "
            f"{form.name} are in seconds"
        )
    times, prompts, outputs, hashes, where = zip(*rows, strict=True)
    if any(hashes) and None in (time_unit_s, hash_tokens) and block_tokens(rows) is None:
        raise ValueError(
            f"trace {str(path)!r} has hash_ids whose number fits prompts in blocks of neither "
            f"{BLOCK_TOKENS} nor {MOONCAKE_TOKENS} tokens, so it tells neither their size nor the "
            "unit of its times; give both, --trace-hash-tokens and --trace-time-unit-s "
            "(hash_tokens and time_unit_s)"
        )
    unit_s = time_unit_s or (1e-3 if _is_mooncake(form, rows) else 1.0)
    num_tokens = hash_tokens or block_tokens(rows) or BLOCK_TOKENS
    blocks = PromptBlocks(hashes, num_tokens) if any(hashes) else None
    lengths = Lengths(np.array(prompts), np.array(outputs), blocks=blocks)
    arrival_s = (np.array(times, float) - times[0]) * unit_s
    return Workload(path.stem, arrival_s, lengths, where=where)


def _is_mooncake(form: Form, rows: Sequence[Row]) -> bool:
    """Whether a timed trace is Mooncake's: whole times, and ids of its block size."""
    return (
        form is TIMED
        and block_tokens(rows) == MOONCAKE_TOKENS
        and all(row.arrival.is_integer() for row in rows)
    )


def _read(path: Path, num_requests: int | None) -> tuple[Form, list[Row]]:
    """A trace's form, and its rows in the file's order."""
    if path.suffix not in READERS:
        raise ValueError(f"trace {str(path)!r} must end in {' or '.join(READERS)}")
    try:
        # Spreadsheets begin a file with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = list(islice(READERS[path.suffix](file, f"trace {path.name}"), num_requests))
    except OSError as error:
        raise ValueError(f"trace {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"trace {str(path)!r} must be UTF-8: {error}") from error
    if not found:
        raise ValueError(f"trace {str(path)!r} holds no request")
    return found[0][0], [row for _, row in found]
