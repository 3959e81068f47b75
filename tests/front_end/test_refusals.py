"""Outputs of the engine on their way to an HTTP answer: served, or shed."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.front_end.held_answer import HeldAnswer
from vllm_sarathi.front_end.middleware import CURRENT, HttpObjectives
from vllm_sarathi.front_end.refusals import ShedError, _with_refusal
from vllm_sarathi.objectives import ObjectivesReader
from vllm_sarathi.shed_notice import notice

SHED = ("error", notice(4))


def output(*ends: tuple[str | None, str | None]) -> RequestOutput:
    """An output with a choice for each finish and stop reason."""
    choices = [
        CompletionOutput(i, "", [], None, None, finish_reason=finish, stop_reason=stop)
        for i, (finish, stop) in enumerate(ends)
    ]
    return RequestOutput("r", None, [1], None, choices, finished=False)


class Core:
    """An engine that yields outputs made before, and notes what became of them."""

    def __init__(self, *outputs: RequestOutput) -> None:
        self.outputs = outputs
        self.was_left = False

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        try:
            for each in self.outputs:
                yield each
        except GeneratorExit:
            self.was_left = True
            raise


def outputs_of(core: Core, http: HttpObjectives | None) -> list[RequestOutput]:
    async def collect() -> list[RequestOutput]:
        generate = _with_refusal(Core.generate)
        params = SamplingParams(extra_args={"ttft_slo_ms": 500})
        return [each async for each in generate(core, "Hi", params, request_id="r")]

    token = CURRENT.set(http)
    try:
        return asyncio.run(collect())
    finally:
        CURRENT.reset(token)


def asked(sent: list[Any]) -> HttpObjectives:
    async def send(message: Any) -> None:
        sent.append(message)

    return HttpObjectives(ObjectivesReader(SarathiConfig(shed=True)), {}, HeldAnswer(send))


def first_status(http: HttpObjectives, sent: list[Any]) -> int | None:
    """Status that goes out when a stream begins after what happened so far."""
    assert http.answer is not None
    asyncio.run(http.answer.send({"type": "http.response.start", "status": 200, "headers": []}))
    return sent[0]["status"] if sent else None


def test_outputs_pass_and_the_first_lets_the_answer_begin() -> None:
    sent: list[Any] = []
    http, core = asked(sent), Core(output((None, None)), output(("stop", None)))
    assert outputs_of(core, http) == list(core.outputs)
    assert first_status(http, sent) == 200


def test_the_answer_is_held_back_until_then() -> None:
    sent: list[Any] = []
    http = asked(sent)
    assert outputs_of(Core(), http) == []
    assert first_status(http, sent) is None


@pytest.mark.parametrize("ends", [(SHED,), (("stop", None), SHED)])
def test_a_shed_choice_refuses_the_request_and_leaves_the_rest_of_it(
    ends: tuple[tuple[str | None, str | None], ...],
) -> None:
    sent: list[Any] = []
    http, core = asked(sent), Core(output(*ends), output((None, None)))
    with pytest.raises(ShedError, match="Retry after 4 s") as refused:
        outputs_of(core, http)
    assert refused.value.status_code == 429
    assert core.was_left
    assert first_status(http, sent) == 429


@pytest.mark.parametrize("end", [("error", None), ("stop", notice(4)), ("abort", None)])
def test_other_ends_are_none_of_its_business(end: tuple[str | None, str | None]) -> None:
    core = Core(output(end))
    assert outputs_of(core, asked([])) == list(core.outputs)


@pytest.mark.parametrize(
    "http", [None, SimpleNamespace(answer=None)], ids=["no server", "not shedding"]
)
def test_without_an_answer_to_refuse_the_generator_is_vllms(http: Any) -> None:
    core = Core(output(SHED))
    assert outputs_of(core, http) == list(core.outputs)
