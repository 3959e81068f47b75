"""`vllm serve --scheduler sarathi`, as a user runs it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.http_load import MixedLoad, ask, run_load
from support.server import Server

from tests.support.command_line import output

pytestmark = pytest.mark.engine


def complete(server: Server, model: str, **body: Any) -> httpx.Response:
    given = {"model": model, "prompt": "The capital of France is", "temperature": 0.0, **body}
    return httpx.post(f"{server.url}/v1/completions", json=given, timeout=120)


def sample(server: Server, name: str) -> float:
    lines = [line for line in server.scrape(f"vllm_sarathi:{name}") if "_created" not in line]
    assert len(lines) == 1, lines
    return float(lines[0].rsplit(" ", 1)[1])


def num_judged(server: Server, qos: str) -> Counter[str]:
    """Objectives of finished requests of a class, by kind."""
    found = Counter[str]()
    for name in ("objectives_attained_total", "objectives_missed_total"):
        for line in server.scrape(f"vllm_sarathi:{name}"):
            if f'qos="{qos}"' in line:
                kind = line.partition('kind="')[2].partition('"')[0]
                found[kind] += int(float(line.rsplit(" ", 1)[1]))
    return found


def total(lines: list[str]) -> float:
    """Sum of samples."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def num_requests(server: Server, state: str) -> int:
    """How many requests are in a state, "running" or "waiting", as the last step left them."""
    lines = server.scrape(f"vllm:num_requests_{state}{{")
    assert lines
    return int(total(lines))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what an engine tells a little later than its answer."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def test_the_model_answers(server: Server, model: str) -> None:
    answer = complete(server, model, max_tokens=5).json()
    assert "Paris" in answer["choices"][0]["text"]


def test_streams_are_whole_and_a_scrape_shows_what_ran(server: Server, model: str) -> None:
    # All at once: how fast the machine is does not decide what runs beside what.
    load = MixedLoad(
        num_streams=3, chats_per_stream=1, chat_tokens=24, num_long=2, long_words=300,
        first_long_s=0, long_every_s=0, long_tokens=4,
    )  # fmt: skip
    result = asyncio.run(run_load(server.url, model, load, lambda stream: None))
    assert [len(s.times.token_times_s) for s in result.streams] == [24, 24, 24, 4, 4]
    assert sample(server, "piggybacked_decodes_total") > 0
    assert sample(server, "prompt_chunks_sum") > sample(server, "prompt_chunks_count")
    assert sample(server, "step_prefill_tokens_sum") > 600
    assert sample(server, "step_budget_tokens_sum") > 0
    (info,) = server.scrape("vllm_sarathi:settings_info")
    assert 'preset="stall-free"' in info
    assert 'token_budget="128"' in info
    assert f'model_name="{model}"' in info
    faults = server.scrape("vllm_sarathi:faults_total")
    assert faults
    assert all(line.endswith(" 0.0") for line in faults)


def test_no_metric_of_vllms_own_is_lost(server: Server, model: str) -> None:
    complete(server, model, max_tokens=2)
    names = {line.split("{")[0] for line in server.scrape("vllm:")}
    assert {
        "vllm:num_requests_running",
        "vllm:time_to_first_token_seconds_sum",
        "vllm:inter_token_latency_seconds_sum",
        "vllm:kv_cache_usage_perc",
    } <= names
    assert (
        httpx.get(f"{server.url}/metrics").text.count("# TYPE vllm_sarathi:step_prefill_tokens ")
        == 1
    )


def test_top_shows_the_server(
    server: Server, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(server, model, max_tokens=2)
    wait_until(lambda: not num_requests(server, "running"))
    code, shown, _ = output(capsys, "top", "--once", "--interval", "0.5", server.url)
    assert code == 0
    assert "sarathi preset            stall-free" in shown
    assert "running + waiting         0 + 0" in shown


def num_prefilled(server: Server) -> float:
    """Prompt tokens that steps ran; 0 while the engine is too busy to tell."""
    return total(server.scrape("vllm_sarathi:step_prefill_tokens_sum"))


def test_a_client_that_leaves_in_mid_prefill_hurts_nobody(server: Server, model: str) -> None:
    async def leave_early() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            before = num_prefilled(server)
            leaving = asyncio.create_task(ask(client, model, "river stone " * 600, 50))
            await asyncio.to_thread(wait_until, lambda: num_prefilled(server) > before)
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


ENDPOINTS = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "completions": {"prompt": "Hi", "max_tokens": 2},
    "responses": {"input": "Hi", "max_output_tokens": 2},
}
TTFT_HEADER = "x-llm-d-slo-ttft-ms"


def post(
    server: Server, model: str, endpoint: str, xargs: dict[str, Any] | None = None, **given: Any
) -> httpx.Response:
    """Ask for two tokens; ``headers`` and ``stream`` as keywords."""
    headers = given.pop("headers", {})
    body = {"model": model, **ENDPOINTS[endpoint], **given}
    if xargs is not None:
        body["vllm_xargs"] = xargs
    return httpx.post(f"{server.url}/v1/{endpoint}", json=body, headers=headers, timeout=120)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_objectives_in_body_and_headers_are_taken(
    server: Server, model: str, endpoint: str, stream: bool
) -> None:
    said = {"qos": "interactive", "tpot_slo_ms": 80, "e2e_slo_ms": 90000.5, "session_id": "a"}
    headers = {TTFT_HEADER: "60000", "x-slo-tpot-ms": "60"}
    before = num_judged(server, "interactive")
    answer = post(server, model, endpoint, said, headers=headers, stream=stream)
    assert answer.status_code == 200, answer.text
    assert ("data: " in answer.text) is stream
    assert '"error": {' not in answer.text
    expected = before + Counter(("ttft", "tpot", "e2e"))
    wait_until(lambda: num_judged(server, "interactive") == expected)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("xargs", "headers", "field", "words"),
    [
        ({"ttft_slo_ms": -5}, {}, "ttft_slo_ms", ("ttft_slo_ms=-5", "at most 86400000")),
        ({"tpot_slo_ms": True}, {}, "tpot_slo_ms", ("tpot_slo_ms=1", "above 1")),
        ({"qos": "gold"}, {}, "qos", ("qos='gold'", "interactive, batch")),
        ({"ttft_slo": 500}, {}, "ttft_slo", ("ttft_slo=500", "known are qos")),
        ({"importance": 5}, {}, "importance", ("importance=5", "client_objectives")),
        (None, {TTFT_HEADER: "fast"}, "ttft_slo_ms", ("ttft_slo_ms='fast'", "above 1")),
        ({"qos": "batch"}, {TTFT_HEADER: "nan"}, "ttft_slo_ms", ("ttft_slo_ms=nan",)),
    ],
)
def test_a_wrong_objective_is_refused_by_name_before_an_answer_begins(
    server: Server, model: str, endpoint: str, stream: bool,
    xargs: dict[str, Any] | None, headers: dict[str, str], field: str, words: tuple[str, ...],
) -> None:  # fmt: skip
    refused = post(server, model, endpoint, xargs, headers=headers, stream=stream)
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("BadRequestError", 400, field)
    assert all(word in error["message"] for word in words), error["message"]


def test_the_body_wins_over_a_header_and_both_over_a_broken_older_one(
    server: Server, model: str
) -> None:
    headers = {TTFT_HEADER: "fast"}
    assert post(server, model, "completions", {"ttft_slo_ms": 50}, headers=headers).is_success
    headers = {TTFT_HEADER: "50", "x-slo-ttft-ms": "fast"}
    assert post(server, model, "completions", headers=headers).is_success


def test_in_overload_a_request_that_cannot_be_in_time_is_refused_streams_included(
    server: Server, model: str
) -> None:
    hopeless = {"ttft_slo_ms": 1.5}

    async def refused(client: httpx.AsyncClient, endpoint: str, **given: Any) -> None:
        body = {"model": model, **ENDPOINTS[endpoint], "vllm_xargs": hopeless, **given}
        answer = await client.post(f"/v1/{endpoint}", json=body)
        assert answer.status_code == 429, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-ttl-expired"
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == (429, "TooManyRequestsError")

    async def overload() -> int:
        num_refused = 0
        is_over = asyncio.Event()

        async def send_prompts(client: httpx.AsyncClient, sender: int) -> None:
            for i in range(1000):
                if is_over.is_set():
                    return
                stream = await ask(client, model, f"{sender} {i} " + "river stone " * 600, 2)
                assert len(stream.times.token_times_s) == 2

        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            senders = [asyncio.create_task(send_prompts(client, i)) for i in range(8)]
            await asyncio.to_thread(wait_until, lambda: num_requests(server, "waiting") > 2)
            for endpoint in ENDPOINTS:
                for given in ({}, {"stream": True}):
                    await refused(client, endpoint, **given)
                    num_refused += 1
            await refused(client, "completions", n=2, stream=True)
            is_over.set()
            await asyncio.gather(*senders)
        return num_refused + 2

    num_refused = asyncio.run(overload())
    wait_until(lambda: total(server.scrape("vllm_sarathi:shed_requests_total")) == num_refused)
    assert complete(server, model, max_tokens=3, vllm_xargs=hopeless).status_code == 200
