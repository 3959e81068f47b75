"""`vllm serve --scheduler sarathi`, as a user runs it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.http_load import MixedLoad, ask, run_load
from support.server import Server, serve

pytestmark = pytest.mark.engine

FLAGS = ("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager")
SETTINGS = ("--scheduler", "sarathi", "--sarathi-config", '{"token_budget": 128}')


@pytest.fixture(scope="module")
def server(model: str) -> Iterator[Server]:
    with serve(model, (*FLAGS, *SETTINGS, "--sarathi-preset", "stall-free")) as started:
        yield started


def complete(server: Server, model: str, **body: Any) -> httpx.Response:
    given = {"model": model, "prompt": "The capital of France is", "temperature": 0.0, **body}
    return httpx.post(f"{server.url}/v1/completions", json=given, timeout=120)


def sample(server: Server, name: str) -> float:
    lines = [line for line in server.scrape(f"vllm_sarathi:{name}") if "_created" not in line]
    assert len(lines) == 1, lines
    return float(lines[0].rsplit(" ", 1)[1])


def test_the_model_answers(server: Server, model: str) -> None:
    answer = complete(server, model, max_tokens=5).json()
    assert "Paris" in answer["choices"][0]["text"]


def test_streams_are_whole_and_a_scrape_shows_what_ran(server: Server, model: str) -> None:
    load = MixedLoad(
        num_streams=3, chats_per_stream=1, chat_tokens=24, num_long=2, long_words=300,
        first_long_s=0.5, long_every_s=0.5, long_tokens=4,
    )  # fmt: skip
    result = asyncio.run(run_load(server.url, model, load, lambda stream: None))
    assert [len(s.times.token_times_s) for s in result.streams] == [24, 24, 24, 4, 4]
    assert sample(server, "piggybacked_decodes_total") > 0
    assert sample(server, "prompt_chunks_sum") > sample(server, "prompt_chunks_count")
    assert sample(server, "step_prefill_tokens_sum") > 600
    assert sample(server, "token_budget{") > 0
    (info,) = server.scrape("vllm_sarathi:settings_info")
    assert 'preset="stall-free"' in info
    assert 'token_budget="128"' in info
    assert f'model_name="{model}"' in info


def test_no_metric_of_vllms_own_is_lost(server: Server, model: str) -> None:
    complete(server, model, max_tokens=2)
    names = {line.split("{")[0] for line in server.scrape("vllm:")}
    assert {
        "vllm:num_requests_running",
        "vllm:time_to_first_token_seconds_sum",
        "vllm:inter_token_latency_seconds_sum",
        "vllm:kv_cache_usage_perc",
    } <= names
    assert httpx.get(f"{server.url}/metrics").text.count("# TYPE vllm_sarathi:token_budget ") == 1


def test_a_client_that_leaves_in_mid_prefill_hurts_nobody(server: Server, model: str) -> None:
    async def leave_early() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            leaving = asyncio.create_task(ask(client, model, "river stone " * 600, 50))
            await asyncio.sleep(0.6)
            leaving.cancel()
            stream = await ask(client, model, "Say hello.", 8)
            assert len(stream.times.token_times_s) == 8

    asyncio.run(leave_early())
    assert complete(server, model, max_tokens=3).status_code == 200


def test_a_prompt_longer_than_the_model_is_refused_and_the_server_lives(
    server: Server, model: str
) -> None:
    refused = complete(server, model, prompt="river " * 4000, max_tokens=5)
    assert refused.status_code == 400
    assert "2048" in refused.text
    assert complete(server, model, max_tokens=3).status_code == 200
