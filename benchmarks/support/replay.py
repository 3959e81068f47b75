"""Sends a workload to a real server at its times."""

import asyncio
import time

import httpx
import numpy as np
from support.http_load import events

from vllm_sarathi.latency import RequestTimes
from vllm_sarathi.simulator import Workload


async def send(client: httpx.AsyncClient, model: str, ids: list[int], num: int) -> RequestTimes:
    """Ask for so many tokens and note when each comes."""
    body = {
        "model": model, "prompt": ids, "max_tokens": num, "temperature": 0.0, "stream": True,
        "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    arrival_s, times_s = time.monotonic(), []
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for event in events(response):
            now_s = time.monotonic()
            for choice in event["choices"]:
                times_s += [now_s] * len(choice.get("token_ids") or ())
    return RequestTimes(arrival_s, times_s)


async def replay(url: str, model: str, workload: Workload, seed: int) -> list[RequestTimes]:
    """Send a workload to a server at its times."""
    random = np.random.default_rng(seed)
    lengths = zip(workload.lengths.num_prompt, workload.lengths.num_output, strict=True)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        began_s, tasks = time.monotonic(), []
        for due_s, (num_prompt, num_output) in zip(workload.arrival_s, lengths, strict=True):
            ids = random.integers(1000, 40_000, num_prompt).tolist()
            await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
            tasks.append(asyncio.create_task(send(client, model, ids, int(num_output))))
        return list(await asyncio.gather(*tasks))
