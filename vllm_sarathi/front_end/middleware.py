"""Carries objectives from HTTP headers to where vLLM makes a request's sampling parameters.

A pure ASGI middleware: it reads headers, never a body, and passes every message
on untouched, unless the server sheds requests. A context variable carries what it read,
since vLLM answers a request in the task, or in children of the task, that runs the
application.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.front_end.held_answer import HeldAnswer
from vllm_sarathi.objectives import ObjectivesReader

Application = Callable[[Any, Any, Any], Awaitable[None]]

# llm-d's names, then its older ones; the first that a request has counts.
_HEADERS = {
    "ttft_slo_ms": (b"x-llm-d-slo-ttft-ms", b"x-slo-ttft-ms"),
    "tpot_slo_ms": (b"x-llm-d-slo-tpot-ms", b"x-slo-tpot-ms"),
}


@dataclass(frozen=True, slots=True)
class HttpObjectives:
    """What the headers of the HTTP request say, and who checks it.

    Args:
        reader: reader under the server's settings.
        from_headers: objectives by field, numbers where they are any.
        answer: the answer, where the server sheds requests.
    """

    reader: ObjectivesReader
    from_headers: Mapping[str, float | str]
    answer: HeldAnswer | None = None

    def admit(self, extra_args: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Extra arguments of a request with what its headers say; its body wins.

        Raises:
            ObjectiveError: names the field, the value and what is allowed.
        """
        if self.from_headers:
            extra_args = {**self.from_headers, **(extra_args or {})}
        objectives = self.reader.read(extra_args)
        if self.answer is not None:
            self.answer.expect(objectives)
        return extra_args

    def expect(self, extra_args: Mapping[str, Any] | None) -> None:
        """Let the answer wait for what becomes of a request with such extra arguments."""
        if self.answer is not None:
            self.answer.expect(self.reader.read_or_default(extra_args))


CURRENT: ContextVar[HttpObjectives | None] = ContextVar("http_objectives", default=None)


class ObjectivesMiddleware:
    """Knows the objectives in the headers of the HTTP request that is being answered."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._reader: ObjectivesReader | None = None
        self._sheds = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._reader is None:
            config = scope["app"].state.vllm_config
            settings = SarathiConfig.of_engine(config)
            self._reader, self._sheds = ObjectivesReader(settings), settings.shed
        answer = HeldAnswer(send) if self._sheds else None
        asked = HttpObjectives(self._reader, from_headers(scope["headers"]), answer)
        token = CURRENT.set(asked)
        try:
            await self._app(scope, receive, send if answer is None else answer.send)
        except Exception:  # vLLM cannot tell every error in every kind of stream
            if answer is None or not await answer.refuse():
                raise
        finally:
            CURRENT.reset(token)


def from_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, float | str]:
    """Objectives that headers name; of a repeated header the first counts.

    Args:
        headers: names in lower case and values, as ASGI gives them.
    """
    given: dict[bytes, bytes] = {}
    for name, value in headers:
        given.setdefault(name, value)
    return {
        field: _number_or_text(given[name])
        for field, names in _HEADERS.items()
        for name in reversed(names)
        if name in given
    }


def _number_or_text(value: bytes) -> float | str:
    """A header's value; what is no number is left to the reader to refuse by name."""
    text = value.decode("latin-1")
    try:
        return float(text)
    except ValueError:
        return text
