"""What the rows ask of `vllm serve`."""

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import httpx
from support.server import Server, free_port, serve, stop, wait_until_ready

from tests.features import shown
from tests.features.asks import LENGTHS, Result, token_prompts

BASE = (
    *("--skip-tokenizer-init", "--dtype", "float32", "--max-model-len", "1024"),
    *("--max-num-seqs", "16", "--max-num-batched-tokens", "1024", "--enforce-eager"),
)


def ask_server(
    model: str, flags: tuple[str, ...], ask: str, num_servers: int
) -> tuple[Result, set[str]]:
    """The result of an ask, and what kept steps from being larger.

    The servers start for it and end; several are behind a router.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(model, (*BASE, *flags))) for _ in range(num_servers)]
        stack.callback(shown.end, servers)
        front = servers[0] if num_servers == 1 else stack.enter_context(routed(servers))
        found: Result = asyncio.run(globals()[ask](front, model))
        samples = [line for one in servers for line in one.scrape("vllm_sarathi:steps_total")]
    counted = (line for line in samples if not line.endswith(" 0.0"))
    return found, {re.findall('limit="(.*?)"', line)[0] for line in counted}


@contextmanager
def routed(servers: Sequence[Server]) -> Iterator[Server]:
    """``vllm-router`` before servers, which take turns."""
    port, own_port = free_port(), free_port()
    command = (
        *(str(Path(sys.executable).with_name("vllm-router")), "--host", "127.0.0.1"),
        *("--port", str(port), "--prometheus-port", str(own_port), "--policy", "round_robin"),
        *("--worker-urls", *(server.url for server in servers)),
    )
    with NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            front = Server(f"http://127.0.0.1:{port}", command, process.pid)
            wait_until_ready(process, front.url, Path(log.name))
            yield front
        finally:
            stop(process)


async def completions(server: Server, model: str) -> Result:
    """Completions that come together, and what ``/metrics`` shows after them."""
    answers = await _answers(server, model)
    own, engines = await asyncio.to_thread(shown.metrics_of, server, model)
    return Result([*answers, own], engines)


async def objectives(server: Server, model: str) -> Result:
    """Objectives reach the servers: wrong ones are refused, whether in the body or a header."""
    found = await _answers(server, model)
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        xargs = {"ttft_slo_ms": 60_000, "qos": "interactive"}
        fine = await _complete(client, model, [1, 2, 3], xargs)
        assert fine["status"] == 200, fine
        wrong = [
            await _complete(client, model, [1, 2, 3], {"qos": "no such class"}),
            await _complete(client, model, [1, 2, 3], headers={"x-llm-d-slo-ttft-ms": "fast"}),
        ]
    refused = [answer["tokens"] for answer in wrong if answer["status"] == 400]
    assert all("qos=" in text or "ttft_slo_ms=" in text for text in refused), refused
    return Result(found, {"wrong objectives refused": len(refused)})


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


async def _answers(server: Server, model: str) -> list[Any]:
    """Tokens of completions that come together."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        asked = [_complete(client, model, prompt) for prompt in token_prompts()]
        return [answer["tokens"] for answer in await asyncio.gather(*asked)]


async def _complete(
    client: httpx.AsyncClient,
    model: str,
    prompt: list[int],
    xargs: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Mapping[str, Any]:
    body = {
        "model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0.0,
        "ignore_eos": True, "return_token_ids": True, "detokenize": False,
        "vllm_xargs": xargs,
    }  # fmt: skip
    answer = await client.post("/v1/completions", json=body, headers=headers)
    if answer.status_code != 200:
        return {"status": answer.status_code, "tokens": answer.text}
    return {"status": 200, "tokens": answer.json()["choices"][0]["token_ids"]}
