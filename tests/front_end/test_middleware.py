"""Headers become objectives of the request that is being answered."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_sarathi.front_end.middleware import CURRENT, ObjectivesMiddleware, from_headers
from vllm_sarathi.objectives import ObjectiveError

SETTINGS = {"min_client_slo_ms": {"ttft_slo_ms": 100}}


def extra_args_seen(
    headers: list[tuple[bytes, bytes]], extra_args: dict[str, Any] | None = None
) -> Any:
    """What vLLM would make a request's extra arguments, behind the middleware."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def answer() -> None:
            http = CURRENT.get()
            assert http is not None
            seen.append(http.admit(extra_args))

        await asyncio.create_task(answer())

    asyncio.run(call(app, {"type": "http", "headers": headers}))
    return seen[0]


async def call(app: Any, scope: dict[str, Any]) -> None:
    config = SimpleNamespace(additional_config={"sarathi": SETTINGS})
    server = SimpleNamespace(state=SimpleNamespace(vllm_config=config))
    await ObjectivesMiddleware(app)({**scope, "app": server}, None, None)


def test_llm_ds_headers_become_objectives() -> None:
    headers = [(b"x-llm-d-slo-ttft-ms", b"500"), (b"x-llm-d-slo-tpot-ms", b"25.5")]
    assert extra_args_seen(headers) == {"ttft_slo_ms": 500.0, "tpot_slo_ms": 25.5}


def test_the_older_names_count_where_the_new_ones_are_absent() -> None:
    headers = [
        (b"x-slo-ttft-ms", b"500"),
        (b"x-llm-d-slo-ttft-ms", b"400"),
        (b"x-slo-tpot-ms", b"9"),
    ]
    assert from_headers(headers) == {"ttft_slo_ms": 400.0, "tpot_slo_ms": 9.0}


def test_of_a_repeated_header_the_first_counts() -> None:
    assert from_headers([(b"x-slo-ttft-ms", b"500"), (b"x-slo-ttft-ms", b"2")]) == {
        "ttft_slo_ms": 500.0
    }


def test_the_body_wins_over_the_headers_and_keeps_what_is_not_ours() -> None:
    body = {"ttft_slo_ms": 300, "session_id": "a"}
    headers = [(b"x-slo-ttft-ms", b"500"), (b"x-slo-tpot-ms", b"25")]
    assert extra_args_seen(headers, body) == {**body, "tpot_slo_ms": 25.0}
    assert body == {"ttft_slo_ms": 300, "session_id": "a"}


@pytest.mark.parametrize("value", [b"fast", b"", b"nan", b"-5", b"99", b"1e400", b"\xff"])
def test_a_header_that_is_no_objective_is_refused_by_field(value: bytes) -> None:
    with pytest.raises(ObjectiveError, match=r"ttft_slo_ms=.*at least 100"):
        extra_args_seen([(b"x-llm-d-slo-ttft-ms", value)])


def test_without_headers_the_arguments_are_the_very_same() -> None:
    body = {"session_id": "a"}
    assert extra_args_seen([(b"accept", b"*/*")], body) is body
    assert extra_args_seen([]) is None


def test_messages_pass_untouched_and_nothing_stays_behind() -> None:
    passed: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append((receive, send))
        raise RuntimeError("the client left")

    async def run() -> None:
        with pytest.raises(RuntimeError, match="the client left"):
            await call(app, {"type": "http", "headers": []})
        assert CURRENT.get() is None

    asyncio.run(run())
    assert passed == [(None, None)]


def test_other_connections_are_none_of_its_business() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert CURRENT.get() is None

    asyncio.run(call(app, {"type": "lifespan"}))
