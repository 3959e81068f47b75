"""What the rows ask of vLLM's engine behind an API server, which runs in other processes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from tests.features.asks import Result, greedy, token_prompts

MANY_TOKENS = 60


async def results(given: dict[str, Any], asks: Sequence[str]) -> dict[str, Result]:
    """The result of each ask."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**given))
    try:
        return {name: await globals()[name](engine) for name in asks}
    finally:
        engine.shutdown()


async def paused(engine: Any) -> Result:
    """Requests that stand still in mid-prefill and mid-decode, and go on."""

    async def pause() -> None:
        await engine.pause_generation(mode="keep", clear_cache=False)
        await asyncio.sleep(0.1)
        await engine.resume_generation()

    return await _interrupted(engine, pause)


async def asleep(engine: Any) -> Result:
    """The same, asleep; then all is freed, and the engine answers again."""

    async def sleep() -> None:
        await engine.sleep(level=0, mode="keep")
        await asyncio.sleep(0.1)
        await engine.wake_up(["scheduling"])

    first, counts = await _interrupted(engine, sleep)
    await engine.sleep(level=1)
    await engine.wake_up()
    again = await asyncio.gather(*_answers(engine, "after"))
    return Result([first, again], counts)


async def sessions(engine: Any) -> Result:
    """Three sessions with three turns each: a turn comes when the one before is answered."""
    prompts = token_prompts((20, 200, 50, 33, 280, 9, 150, 14, 70))

    async def session(name: int) -> list[list[int]]:
        answered = asyncio.Semaphore()

        async def turns() -> AsyncGenerator[Any, None]:
            from vllm.engine.protocol import StreamingInput

            for prompt in prompts[name::3]:
                await answered.acquire()
                yield StreamingInput({"type": "token", "prompt_token_ids": prompt})

        found = list[int]()
        params = greedy(output_kind=_delta())
        async for output in engine.generate(turns(), params, f"session {name}"):
            for choice in output.outputs:
                found += choice.token_ids
                if len(found) % params.max_tokens == 0:
                    answered.release()
        return [found]

    return Result(list(await asyncio.gather(*(session(i) for i in range(3)))), {})


async def _interrupted(engine: Any, interrupt: Callable[[], Any]) -> Result:
    answers = [asyncio.ensure_future(answer) for answer in _answers(engine, "before")]
    num_interrupted = 0
    for _ in range(5):
        await asyncio.sleep(0.05)
        num_interrupted += not all(answer.done() for answer in answers)
        await interrupt()
    return Result(list(await asyncio.gather(*answers)), {"interruptions": num_interrupted})


def _answers(engine: Any, when: str) -> list[Any]:
    return [_answer(engine, prompt, f"{when} {i}") for i, prompt in enumerate(token_prompts())]


async def _answer(engine: Any, prompt: list[int], name: str) -> list[int]:
    found: list[int] = []
    params = greedy(max_tokens=MANY_TOKENS, output_kind=_delta())
    async for output in engine.generate({"prompt_token_ids": prompt}, params, name):
        found += output.outputs[0].token_ids
    return found


def _delta() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.DELTA
