"""Thousands of streams at a time over HTTP: none is cut short, none lost, memory stays flat.

Each of many clients streams one completion after another; some leave in mid-stream. The model
keeps the shape of the small one, with two layers of random weights, so that the server does
little else than serve.

Run ``python benchmarks/streams.py``: writes results/streams.json and prints a line each minute.
"""

import argparse
import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]
from support.http_load import WORDS
from support.model import DEFAULT_MODEL
from support.provenance import provenance
from support.server import Server, serve

RESULTS = Path(__file__).parent / "results"
FLAGS = (
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "512"),
    *("--load-format", "dummy", "--hf-overrides", '{"num_hidden_layers": 2}'),
    *(
        "--served-model-name",
        "tiny",
        "--scheduler",
        "sarathi",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    ),
)
ASKS: tuple[dict[str, Any], ...] = (
    {},
    {"qos": "interactive"},
    {"qos": "batch"},
    {"ttft_slo_ms": 5000, "tpot_slo_ms": 500},
)
LEAVING = 0.1
LIMIT_S = 600
"""Longest that one stream may take."""


async def stream(client: aiohttp.ClientSession, rng: random.Random) -> str:
    """Stream one completion, and tell what became of it."""
    num_tokens, num_came = rng.randint(4, 48), 0
    leaves_after = rng.randint(0, num_tokens) if rng.random() < LEAVING else num_tokens + 1
    body = {
        "model": "tiny",
        "prompt": " ".join(rng.choices(WORDS, k=rng.randint(2, 120))),
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "stream": True,
        "return_token_ids": True,
        "vllm_xargs": rng.choice(ASKS),
    }
    async with client.post("/v1/completions", json=body) as answer:
        if answer.status != 200:
            return f"HTTP {answer.status}"
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line.removeprefix(b"data: ")).get("choices")
            if choices is None:
                return "error"
            num_came += sum(len(choice.get("token_ids") or ()) for choice in choices)
            if num_came >= leaves_after:
                return "left"
    return "whole" if num_came == num_tokens else "cut short"


async def client_of(url: str, seed: int, until_s: float, became: Counter[str]) -> None:
    """Stream one completion after another until the time is over."""
    rng = random.Random(seed)
    limit = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(url, timeout=limit) as session:
        while monotonic() < until_s:
            try:
                became[await stream(session, rng)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                became[type(error).__name__] += 1


async def drive(server: Server, options: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Let all clients stream until the time is over, then until the last stream has ended."""
    began_s, became, rows = monotonic(), Counter[str](), []
    until_s = began_s + options.minutes * 60
    clients = [
        asyncio.create_task(client_of(server.url, seed, until_s, became))
        for seed in range(options.streams)
    ]
    while not all(client.done() for client in clients):
        await asyncio.wait(clients, timeout=60)
        ended = sum(became.values())
        rows.append([round(monotonic() - began_s), ended, memory_mib(pid)])
        print("{:>5} s {:>8,} streams ended {:8.0f} MiB".format(*rows[-1]), dict(became))
    await asyncio.gather(*clients)
    return {"became": dict(became), "columns": ["seconds", "ended", "memory_mib"], "rows": rows}


def memory_mib(pid: int) -> float:
    """Memory that the server's processes have of their own, or share of what they share."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(process.memory_full_info().pss for process in processes)) / 2**20


async def idle(server: Server) -> list[str]:
    """What the server still has to do, by its metrics, once it has done all."""
    for _ in range(60):
        left = server.scrape("vllm:num_requests_running") + server.scrape(
            "vllm:num_requests_waiting{"
        )
        if all(line.endswith(" 0.0") for line in left):
            break
        await asyncio.sleep(1)
    return [
        *left,
        *server.scrape("vllm:kv_cache_usage_perc"),
        *server.scrape("vllm_sarathi:faults"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="gives shape and tokenizer")
    parser.add_argument("--streams", type=int, default=2000, metavar="N", help="at a time")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--output", default=str(RESULTS / "streams.json"))
    options = parser.parse_args()
    with serve(options.model, FLAGS) as server:
        found = asyncio.run(drive(server, options, server.pid))
        left = asyncio.run(idle(server))
        print("\n".join(left))
    held = {**provenance(server=server.command), **found, "left": left}
    Path(options.output).write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
