"""vLLM's own benchmark client, `vllm bench serve`, against a server on this machine."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from support.server import Server

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator import Lengths

PROMPT_CHUNK = 16
PRELOADED = (
    "__main__",
    "vllm.benchmarks.serve",
    "vllm.entrypoints.cli.benchmark.main",
    "vllm.entrypoints.cli.serve",
)
RAW = ("input_lens", "output_lens", "start_times", "ttfts", "latencies", "errors")
COUNTS = ("duration", "completed", "failed", "request_goodput", "output_throughput")


def write_trace(lengths: Lengths, file: Path) -> None:
    """Write requests for vLLM's dataset "timed_trace", no two prompts alike.

    The dataset gives every request its exact lengths, and unlike "custom" it needs no
    pandas. Arrivals are the client's, so the timestamps say nothing.
    """
    lines, used = [], 0
    for num_prompt, num_output in zip(lengths.num_prompt, lengths.num_output, strict=True):
        num_chunks = -(-int(num_prompt) // PROMPT_CHUNK)
        lines.append(
            {
                "timestamp": 0.0,
                "input_length": int(num_prompt),
                "output_length": int(num_output),
                "hash_ids": list(range(used, used + num_chunks)),
            }
        )
        used += num_chunks
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def trace_flags(file: Path, num_prompts: int, rate: float, seed: int) -> tuple[str, ...]:
    """Flags of the client: a trace's requests, arriving as a Poisson process."""
    dataset = ("--dataset-name", "timed_trace", "--dataset-path", str(file), "--no-self-timed")
    chunk = ("--timed-trace-chunk-hash-size", str(PROMPT_CHUNK))
    load = ("--num-prompts", str(num_prompts), "--request-rate", f"{rate:g}", "--seed", str(seed))
    return (*dataset, *chunk, *load)


def goodput_flags(objectives: Objectives) -> tuple[str, ...]:
    """Flags of the client: what every request asks."""
    asked = {"ttft": objectives.ttft_s, "tpot": objectives.tpot_s}
    named = [f"{name}:{1e3 * value:g}" for name, value in asked.items() if value is not None]
    return ("--goodput", *named)


def bench(server: Server, model: str, flags: Sequence[str], limit_s: float) -> dict[str, Any]:
    """Run `vllm bench serve` and return what it saves, with its command.

    Args:
        server: what it sends requests to.
        model: the served model.
        flags: the load and what it asks.
        limit_s: how long it may take, in seconds.

    Raises:
        RuntimeError: it failed or took too long; holds the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-bench-") as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        saved = ("--save-result", "--save-detailed", "--result-dir", folder)
        fixed = ("--backend", "openai", "--temperature", "0", "--disable-tqdm")
        command = ("vllm", "bench", "serve", "--base-url", server.url, "--model", model, *fixed)
        run_command(
            (*command, *flags, *saved, "--result-filename", result.name), Path(log), limit_s
        )
        if not result.exists():
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"no result within {limit_s:g} s of {' '.join(command)}:\n{end}")
        found: dict[str, Any] = json.loads(result.read_text())
    shown = ("vllm", "bench", "serve", "--model", Path(model).name, *fixed, *flags)
    return found | {"command": [Path(a).name if Path(a).is_absolute() else a for a in shown]}


def run_command(command: Sequence[str], log: Path, limit_s: float) -> None:
    """Run the `vllm` command in a process that has imported vLLM already, which takes seconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=vllm_command, args=(command, log))
    process.start()
    try:
        process.join(limit_s)
    finally:
        process.kill()
        process.join()


def vllm_command(command: Sequence[str], log: Path) -> None:
    """What the `vllm` command does, its output in a file."""
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    from vllm.entrypoints.cli.main import main

    sys.argv = list(command)
    main()


def share_in_time(result: dict[str, Any]) -> float:
    """Share of the offered requests that met all that they asked, as the client counts them."""
    return float(result["request_goodput"] * result["duration"] / result["num_prompts"])


def as_json(result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a result: a tenth of a millisecond, no texts."""
    began_s = min(result["start_times"], default=0.0)
    kept: dict[str, Any] = {name: result[name] for name in (*COUNTS, *RAW)}
    kept["start_times"] = [start_s - began_s for start_s in result["start_times"]]
    for name in ("start_times", "ttfts", "latencies"):
        kept[name] = [round(value, 4) for value in kept[name]]
    return kept
