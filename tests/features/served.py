"""What the rows ask of `vllm serve`."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
from support.server import Server, serve

from tests.features.asks import LENGTHS, Result, token_prompts

BASE = (
    *("--skip-tokenizer-init", "--dtype", "float32", "--max-model-len", "1024"),
    *("--max-num-seqs", "16", "--max-num-batched-tokens", "1024", "--enforce-eager"),
)


def ask_server(model: str, flags: tuple[str, ...], ask: str) -> Result:
    """The result of an ask, from a server that starts for it and ends."""
    with serve(model, (*BASE, *flags)) as server:
        found: Result = asyncio.run(globals()[ask](server, model))
        return found


async def completions(server: Server, model: str) -> Result:
    """Completions that come together."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        asked = [_complete(client, model, prompt) for prompt in token_prompts()]
        return Result([answer["tokens"] for answer in await asyncio.gather(*asked)], {})


async def queue_limits(server: Server, model: str) -> Result:
    """Within the limits all are answered; beyond, some are refused with 503, none fails."""
    few = [prompt for prompt in token_prompts() if len(prompt) < 100]
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        within = [await _complete(client, model, prompt) for prompt in few]
        many = [_complete(client, model, p) for p in token_prompts(LENGTHS * 3, seed=3)]
        found = await asyncio.gather(*many)
    statuses = Counter(answer["status"] for answer in found)
    assert set(statuses) == {200, 503}, statuses
    return Result([answer["tokens"] for answer in within], {"refusals": statuses[503]})


async def _complete(client: httpx.AsyncClient, model: str, prompt: list[int]) -> Mapping[str, Any]:
    body = {
        "model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0.0,
        "ignore_eos": True, "return_token_ids": True, "detokenize": False,
    }  # fmt: skip
    answer = await client.post("/v1/completions", json=body)
    if answer.status_code != 200:
        return {"status": answer.status_code, "tokens": answer.text}
    return {"status": 200, "tokens": answer.json()["choices"][0]["token_ids"]}
