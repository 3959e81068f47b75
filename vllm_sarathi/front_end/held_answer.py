"""Holds an HTTP answer back until its request is served or shed, so that its status can be 429.

vLLM sends the status of a stream before the engine core says anything of the request.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from vllm_sarathi.latency import Objectives
from vllm_sarathi.shed_notice import REASON

_START, _BODY = "http.response.start", "http.response.body"
_OF_THE_BODY = (b"content-type", b"content-length", b"content-encoding", b"transfer-encoding")
"""Headers of the answer that a refusal replaces; the others, such as CORS's, stay."""


class HeldAnswer:
    """The ``send`` of an ASGI application, for a request that may be shed.

    Args:
        send: what sends the application's messages to the client.
    """

    def __init__(self, send: Callable[[Any], Awaitable[None]]) -> None:
        self._send = send
        self._waits = False
        self._held: list[Any] = []
        self._has_begun = False
        self._retry_after_s: int | None = None
        self._is_refused = False

    def expect(self, objectives: Objectives) -> None:
        """Wait for what becomes of a request that asks this, where it may be shed."""
        is_due = objectives.ttft_s is not None or objectives.e2e_s is not None
        if is_due and not self._has_begun:
            self._waits = True

    def serve(self) -> None:
        """The request is served: hold nothing back any longer."""
        self._waits = False

    def shed(self, retry_after_s: int) -> None:
        """The request was shed: refuse it, unless the answer has begun."""
        if not self._has_begun:
            self._retry_after_s = retry_after_s

    async def send(self, message: Any) -> None:
        """Send a message of the application, hold it back, or send a refusal in its place."""
        self._held.append(message)
        if await self.refuse():
            return
        is_last = message["type"] == _BODY and not message.get("more_body", False)
        if self._waits and not is_last:
            return
        self._has_begun = True
        held, self._held = self._held, []
        for each in held:
            await self._send(each)

    async def refuse(self) -> bool:
        """Refuse a request that was shed before its answer began; whether it was one."""
        if self._retry_after_s is None:
            return False
        held, self._held = self._held, []
        if not self._is_refused:
            self._is_refused = True
            starts = [each for each in held if each["type"] == _START]
            headers = starts[0].get("headers", ()) if starts else ()
            for each in refusal(self._retry_after_s, headers):
                await self._send(each)
        return True


def refusal(retry_after_s: int, headers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The messages of an answer that tells a client to try again, its error in vLLM's shape.

    Args:
        retry_after_s: whole seconds after which to do so.
        headers: those of the answer that it replaces, as ASGI gives them.
    """
    status = HTTPStatus.TOO_MANY_REQUESTS
    error = {"message": explanation(retry_after_s), "type": "TooManyRequestsError", "param": None,
             "code": status.value}  # fmt: skip
    body = json.dumps({"error": error}).encode()
    kept = [(name, value) for name, value in headers if name.lower() not in _OF_THE_BODY]
    own = {
        b"content-type": b"application/json",
        b"content-length": str(len(body)).encode(),
        b"retry-after": str(retry_after_s).encode(),
        b"x-llm-d-request-dropped-reason": REASON.encode(),
    }
    start = {"type": _START, "status": status.value, "headers": [*kept, *own.items()]}
    return start, {"type": _BODY, "body": body}


def explanation(retry_after_s: int) -> str:
    """What a client whose request was shed reads."""
    return (
        "The server is overloaded: the request can no longer meet its objective for the first "
        f"or last token. Retry after {retry_after_s} s."
    )
