"""Tells the HTTP answer of a request what becomes of it: served, or shed by the engine core.

Every request over HTTP passes ``AsyncLLM.generate``. Offline, and for who calls that
method without a server, a shed request is an output like others: finish reason "error",
stop reason ``shed_notice.notice``.
"""

import functools
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM

from vllm_sarathi.front_end.held_answer import HeldAnswer, explanation
from vllm_sarathi.front_end.middleware import CURRENT
from vllm_sarathi.shed_notice import retry_after_s

try:
    from vllm.exceptions import GenerationError
except ImportError:  # older versions
    from vllm.entrypoints.openai.engine.protocol import (  # type: ignore[import-not-found]
        GenerationError,
    )


class ShedError(GenerationError):  # type: ignore[misc]  # mypy does not see vLLM's base
    """A request was shed. vLLM ends its work on the answer, also one that has begun."""

    def __init__(self, after_s: int) -> None:
        super().__init__(explanation(after_s))
        self.status_code = HTTPStatus.TOO_MANY_REQUESTS


@functools.cache
def install() -> None:
    """Wrap the method. Idempotent; where nothing is shed it does what it did."""
    AsyncLLM.generate = _with_refusal(AsyncLLM.generate)


def _with_refusal(generate: Any) -> Any:
    @functools.wraps(generate)
    def wrapper(self: Any, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = generate(self, prompt, sampling_params, *args, **kwargs)
        http = CURRENT.get()
        if http is None or http.answer is None:
            return outputs
        http.expect(sampling_params.extra_args)
        return _until_shed(outputs, http.answer)

    return wrapper


async def _until_shed(outputs: Any, answer: HeldAnswer) -> AsyncIterator[Any]:
    """The outputs of a request, up to one that says that it, or a choice of it, was shed.

    Raises:
        ShedError: it was shed; what is left of the request is aborted.
    """
    async with aclosing(outputs):
        async for output in outputs:
            after_s = next(filter(None, map(_shed_until, output.outputs)), None)
            if after_s is not None:
                answer.shed(after_s)
                raise ShedError(after_s)
            answer.serve()
            yield output


def _shed_until(choice: Any) -> int | None:
    return retry_after_s(choice.stop_reason) if choice.finish_reason == "error" else None
