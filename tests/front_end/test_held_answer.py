"""What a client gets of an answer that was held back, at the level of ASGI."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import JSONResponse, StreamingResponse

from vllm_sarathi.front_end.held_answer import HeldAnswer
from vllm_sarathi.front_end.middleware import CURRENT, HttpObjectives, ObjectivesMiddleware

DUE = {"ttft_slo_ms": 500}
CORS = {"access-control-allow-origin": "*"}


def answer(script: Any, *, shed: bool = True) -> list[Any]:
    """What the client gets from an application that does as a script says.

    Args:
        script: an application that is given what the middleware knows of its request.
        shed: the server's setting.
    """
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        http = CURRENT.get()
        assert http is not None
        await script(http, send, got)

    async def send(message: Any) -> None:
        got.append(message)

    config = SimpleNamespace(additional_config={"sarathi": {"shed": shed}})
    server = SimpleNamespace(state=SimpleNamespace(vllm_config=config))
    scope = {"type": "http", "headers": [], "app": server}
    asyncio.run(ObjectivesMiddleware(app)(scope, None, send))
    return got


def status(got: list[Any]) -> int:
    """The one status of an answer that is whole."""
    (start,) = (each for each in got if each["type"] == "http.response.start")
    assert got[0] is start
    assert not got[-1].get("more_body", False)
    return int(start["status"])


def text(got: list[Any]) -> str:
    return b"".join(each.get("body", b"") for each in got).decode()


def of(http: HttpObjectives) -> HeldAnswer:
    assert http.answer is not None
    return http.answer


async def sent(response: Any, send: Any) -> None:
    """Send a response as vLLM's endpoints do."""

    async def receive() -> Any:
        await asyncio.sleep(60)

    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)


@pytest.mark.parametrize("stream", [False, True])
def test_a_shed_request_is_answered_429_with_the_time_to_try_again(stream: bool) -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(DUE)

        async def chunks() -> AsyncIterator[str]:
            yield ": keep alive\n\n"
            assert got == []
            of(http).shed(7)
            yield "data: error\n\n"
            yield "data: [DONE]\n\n"

        if stream:
            await sent(StreamingResponse(chunks(), headers=CORS), send)
        else:
            of(http).shed(7)
            await sent(JSONResponse({"error": "vLLM's"}, 500, headers=CORS), send)

    got = answer(script)
    assert status(got) == 429
    headers = dict(got[0]["headers"])
    assert headers == {
        b"access-control-allow-origin": b"*",
        b"content-type": b"application/json",
        b"content-length": str(len(text(got))).encode(),
        b"retry-after": b"7",
        b"x-llm-d-request-dropped-reason": b"rejected-ttl-expired",
    }
    error = json.loads(text(got))["error"]
    assert (error["code"], error["type"], error["param"]) == (429, "TooManyRequestsError", None)
    assert "Retry after 7 s" in error["message"]


def test_a_shed_request_is_refused_also_where_vllm_fails_to_tell_its_error() -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(DUE)

        async def chunks() -> AsyncIterator[str]:
            yield "created"
            of(http).shed(7)
            raise TypeError("not an event of this stream")

        await sent(StreamingResponse(chunks()), send)

    assert status(answer(script)) == 429


def test_other_errors_of_the_application_go_on_and_nothing_goes_out_before_them() -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(DUE)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the engine died")

    with pytest.raises(RuntimeError, match="the engine died"):
        answer(script)


def test_a_stream_is_whole_and_begins_with_its_first_token() -> None:
    seen = []

    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(DUE)

        async def chunks() -> AsyncIterator[str]:
            yield "created "
            seen.append(len(got))
            of(http).serve()
            yield "one "
            seen.append(len(got))
            yield "two"

        await sent(StreamingResponse(chunks()), send)

    got = answer(script)
    assert (status(got), text(got)) == (200, "created one two")
    assert seen == [0, 3]


@pytest.mark.parametrize("asked", [None, {"tpot_slo_ms": 50}, {"qos": "batch"}])
def test_a_request_that_is_never_shed_is_never_held_back(asked: Any) -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(asked)

        async def chunks() -> AsyncIterator[str]:
            assert len(got) == 1
            yield "one"

        await sent(StreamingResponse(chunks()), send)

    assert status(answer(script)) == 200


def test_an_error_of_vllms_own_passes_before_anything_is_known_of_the_request() -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(DUE)
        await sent(JSONResponse({"error": "too long"}, 400), send)

    got = answer(script)
    assert (status(got), text(got)) == (400, '{"error":"too long"}')


def test_an_answer_that_has_begun_ends_as_vllm_ends_it() -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        http.admit(DUE)

        async def chunks() -> AsyncIterator[str]:
            of(http).serve()
            yield "choice 0 "
            of(http).expect(http.reader.read(DUE))  # such as a turn after a call of a tool
            of(http).shed(3)
            yield "error of choice 1"

        await sent(StreamingResponse(chunks()), send)

    got = answer(script)
    assert (status(got), text(got)) == (200, "choice 0 error of choice 1")


def test_without_the_setting_no_message_is_looked_at() -> None:
    async def script(http: HttpObjectives, send: Any, got: list[Any]) -> None:
        assert http.answer is None
        http.admit(DUE)
        http.expect(DUE)
        await send("any object")

    assert answer(script, shed=False) == ["any object"]
