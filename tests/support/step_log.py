"""Reads and writes step logs."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

EPOCH_S = 1_700_000_000.0
BEGIN: dict[str, Any] = {
    "begin": {
        "num_stages": 1,
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 256,
        "settings": {"preset": "slo", "tbt_slo_ms": 50.0, "shed": False},
        "classes": {"default": {"tbt_s": 0.05}, "interactive": {"ttft_s": 2.0, "tpot_s": 0.05}},
    }
}


def logged_steps(path: Path) -> list[dict[str, Any]]:
    """The steps in a step log, without the line that says what they were recorded with."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "work" in line]


def gap(longest_s: float, **more: Any) -> dict[str, Any]:
    """Four gaps of one class."""
    objective_s = more.get("objective_s", 0.05)
    late = 4 if objective_s and longest_s > objective_s else 0
    found = {"num": 4, "mean_s": longest_s, "longest_s": longest_s, "request_id": "a"}
    return found | {"objective_s": 0.05, "num_late": late} | more


def step(duration_s: float = 0.02, prefill: int = 0, decodes: int = 4, **more: Any) -> Any:
    """A step; ``placed`` says when."""
    line = {
        "work": {"num_tokens": prefill + decodes, "chunk_context": 0.0, "decode_context": 100},
        "num_decodes": decodes,
        "num_prefill_tokens": prefill,
        "token_budget": 512,
        "limit": "objective" if prefill else "no_more_prefill",
        "num_decodes_paused": 0,
        "predicted_s": duration_s,
        "objective_s": 0.05,
        "admission_blocked_by": None,
        "duration_s": duration_s,
        "num_in_flight": 1,
        "num_running": decodes,
        "num_waiting": 0,
        "num_aside": 0,
        "num_admitted": 0,
        "num_preempted": 0,
        "kv_usage": 0.5,
        "between_s": 0.0,
        "gaps": {"default": gap(duration_s)} if decodes else {},
    }
    return line | more


def placed(steps: Iterable[dict[str, Any]], idle_s: float = 0.0) -> Iterator[dict[str, Any]]:
    """Steps one after the other, with so much time between them."""
    now_s = EPOCH_S
    for line in steps:
        times = {"scheduled_s": now_s, "ended_s": now_s + line["duration_s"]}
        now_s += line["duration_s"] + idle_s
        yield line | times


def write_log(path: Path, *lines: dict[str, Any] | str) -> Path:
    """Write lines: mappings as JSON, strings as they are."""
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path
