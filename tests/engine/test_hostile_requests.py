"""Whatever clients send: the engine lives, nothing grows, and errors are theirs."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.server import Server

pytestmark = pytest.mark.engine

CLIENT_ERRORS = (400, 413, 422, 429)
ENDPOINTS = "^/v1/(completions|chat/completions|responses)$"
any_settings = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

FIELDS = ("qos", "ttft_slo_ms", "tpot_slo_ms", "tbt_slo_ms", "e2e_slo_ms", "importance")
words = st.sampled_from(["", "interactive", "nan", "-0", "1e999", "batch\n", "q" * 10_000])
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), finite, st.text(), words)
values = st.recursive(
    scalars, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(), of, max_size=3)
)
numbers = st.sampled_from([float("nan"), float("inf"), -float("inf"), 10**400, 5e-324])
header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)


def ask(server: Server, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    given = {"prompt": "Hi", "max_tokens": 1, **body}
    text = json.dumps(given)  # with NaN, which httpx would refuse to send
    headers = {"content-type": "application/json", **(headers or {})}
    return httpx.post(f"{server.url}/v1/completions", content=text, headers=headers, timeout=120)


def labels_of(server: Server) -> set[str]:
    """Every series of ours, without its value."""
    return {line.rsplit(" ", 1)[0] for line in server.scrape("vllm_sarathi:")}


def assert_lives(server: Server) -> None:
    assert ask(server, {}).status_code == 200
    faults = server.scrape("vllm_sarathi:faults_total")
    assert all(line.endswith(" 0.0") for line in faults), faults


@given(name=st.sampled_from(FIELDS) | st.text(max_size=40), value=values | numbers)
@any_settings
def test_any_value_of_an_objective_is_taken_or_refused(
    server: Server, name: str, value: object
) -> None:
    answer = ask(server, {"vllm_xargs": {name: value}})
    assert answer.status_code == 200 or answer.status_code in CLIENT_ERRORS, answer.text


@given(text=header_texts, name=st.sampled_from(["x-llm-d-slo-ttft-ms", "x-slo-tpot-ms"]))
@any_settings
def test_any_header_is_taken_or_refused(server: Server, text: str, name: str) -> None:
    answer = ask(server, {}, {name: text.strip()})
    assert answer.status_code == 200 or answer.status_code in CLIENT_ERRORS, answer.text


def test_deep_json_and_floods_of_headers_are_refused_and_the_server_lives(server: Server) -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert ask(server, {"vllm_xargs": {"qos": deep}}).status_code in CLIENT_ERRORS
    flood = {f"x-llm-d-slo-{i}": "1" for i in range(2000)}
    try:
        status = ask(server, {}, flood).status_code
    except httpx.TransportError:
        status = 400  # the connection was closed, as for any server of vLLM's
    assert status == 200 or 400 <= status < 500
    assert_lives(server)


def test_class_names_of_clients_add_no_series(server: Server) -> None:
    async def flood() -> set[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
            bodies = (
                {"prompt": "Hi", "max_tokens": 1, "vllm_xargs": {"qos": f"class-{i}"}}
                for i in range(1000)
            )
            found = set()
            for _ in range(10):
                asked = [client.post("/v1/completions", json=next(bodies)) for _ in range(100)]
                found |= {answer.status_code for answer in await asyncio.gather(*asked)}
            return found

    ask(server, {})
    before = labels_of(server)
    assert asyncio.run(flood()) == {400}
    assert labels_of(server) == before
    assert_lives(server)


def test_no_request_that_the_servers_own_schema_allows_is_our_error(
    server: Server, model: str
) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = schema.include(path_regex=ENDPOINTS, method="POST").get_all_operations()

    def check(operation: Any) -> None:
        @given(case=operation.as_strategy(), xargs=st.dictionaries(st.sampled_from(FIELDS), values))
        @any_settings
        def any_case(case: Any, xargs: dict[str, Any]) -> None:
            if isinstance(case.body, dict):
                case.body |= {"model": model, "vllm_xargs": xargs, "stream": False}
                case.body |= {"max_tokens": 2, "max_output_tokens": 2}
            answer = case.call(base_url=server.url, timeout=120)
            assert answer.status_code < 500, (case.body, answer.text)

        any_case()

    found = [operation.ok() for operation in operations]  # type: ignore[union-attr]
    assert len(found) == 3
    for operation in found:
        check(operation)
    assert_lives(server)
