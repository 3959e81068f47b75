"""A load whose metrics are worth looking at: classes of objectives, some of them missed."""

import asyncio
import json
import random
import time

import httpx
from support.http_load import WORDS, ask

CLASSES = {
    "gold": {"ttft_slo_ms": 2000, "e2e_slo_ms": 10000},
    "chat": {"ttft_slo_ms": 4000, "tpot_slo_ms": 150},
}
SERVER = (
    *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager"),
    *("--no-enable-prefix-caching", "--scheduler", "sarathi", "--sarathi-ttft-slo-ms", "10000"),
    *("--sarathi-tbt-slo-ms", "600"),
    *("--sarathi-qos-classes", json.dumps(CLASSES)),
)
"""Flags of the server, for SmolLM2-135M on two cores."""

KINDS = (("gold", 20, 64), ("chat", 80, 64), ("default", 300, 20), ("batch", 600, 10))
"""Class, words of the prompt and output tokens of the requests, one after the other."""

CALM_S, BUSY_S = 2.5, 0.6
"""Time between two requests; in the middle third more come than can be served in time."""


async def run_for(url: str, model: str, duration_s: float) -> None:
    """Send requests for a time, and wait for the last answer."""
    begin_s, index = time.monotonic(), 0
    async with httpx.AsyncClient(base_url=url, timeout=300) as client, asyncio.TaskGroup() as group:
        while (passed := (time.monotonic() - begin_s) / duration_s) < 1:
            qos, num_words, num_tokens = KINDS[index % len(KINDS)]
            prompt = " ".join(random.Random(index).choices(WORDS, k=num_words))
            group.create_task(ask(client, model, prompt, num_tokens, qos=qos))
            index += 1
            await asyncio.sleep(BUSY_S if 1 / 3 < passed < 2 / 3 else CALM_S)
