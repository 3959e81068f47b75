"""A bounded load of streaming chats over HTTP, each token's arrival recorded."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from vllm_sarathi.latency import RequestTimes

WORDS = ("river", "stone", "market", "engine", "winter", "paper", "garden", "signal", "copper")


@dataclass(frozen=True, slots=True)
class MixedLoad:
    """Chats that decode all the time, and long prompts that arrive among them.

    Chats outlast the long prompts, so that tokens per second are what the server can do.

    Attributes:
        num_streams: chats at any one time; each that ends is followed by the next.
        chats_per_stream: chats that follow one another.
        chat_tokens: output tokens of a chat.
        num_long: long prompts.
        long_words: words of a long prompt, roughly its tokens.
        long_tokens: output tokens of a long prompt.
        first_long_s: arrival of the first long prompt.
        long_every_s: seconds between arrivals of long prompts.
        seed: of the prompts' words.
    """

    num_streams: int = 4
    chats_per_stream: int = 6
    chat_tokens: int = 60
    num_long: int = 4
    long_words: int = 1000
    long_tokens: int = 16
    first_long_s: float = 2.0
    long_every_s: float = 6.0
    seed: int = 0


@dataclass(slots=True)
class Stream:
    """One request's record."""

    name: str
    times: RequestTimes
    text: str = ""


@dataclass(slots=True)
class LoadResult:
    """What a load saw.

    Attributes:
        load: the load.
        began_s: when it began.
        ended_s: when the last token came.
        streams: the requests in order of their arrival.
    """

    load: MixedLoad
    began_s: float
    ended_s: float = 0.0
    streams: list[Stream] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Output tokens received."""
        return sum(len(stream.times.token_times_s) for stream in self.streams)

    def as_json(self) -> dict[str, Any]:
        """Raw times, relative to the beginning, to a tenth of a millisecond."""
        return {
            "load": asdict(self.load),
            "duration_s": self.ended_s - self.began_s,
            "requests": [
                {
                    "name": stream.name,
                    "arrival_s": round(stream.times.arrival_s - self.began_s, 4),
                    "token_times_s": [
                        round(t - self.began_s, 4) for t in stream.times.token_times_s
                    ],
                }
                for stream in self.streams
            ],
        }


async def ask(
    client: httpx.AsyncClient,
    model: str,
    prompt: str,
    max_tokens: int,
    ignore_eos: bool = True,
    **asked: Any,
) -> Stream:
    """Send one chat, with the objectives that it asks, and record when each token came.

    One event may carry several tokens or none; vLLM says which with
    ``return_token_ids``.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "stream": True,
        "ignore_eos": ignore_eos,
        "return_token_ids": True,
    }
    if asked:
        body["vllm_xargs"] = asked
    arrival_s, token_times_s, text = time.monotonic(), [], ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            raise RuntimeError(f"{response.status_code}: {(await response.aread()).decode()}")
        async for event in events(response):
            for choice in event["choices"]:
                now = time.monotonic()
                token_times_s += [now] * len(choice.get("token_ids") or ())
                text += choice["delta"].get("content") or ""
    return Stream("", RequestTimes(arrival_s, token_times_s), text)


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The server-sent events of a streaming answer."""
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


async def run_load(
    url: str, model: str, load: MixedLoad, on_answer: Callable[[Stream], None]
) -> LoadResult:
    """Send a mixed load to a server and wait for its end.

    Args:
        url: the server's root.
        model: the served model's name.
        load: the load.
        on_answer: called at the end of each request, to show progress.
    """
    result = LoadResult(load, time.monotonic())

    async def send(name: str, num_words: int, max_tokens: int) -> None:
        words = random.Random(f"{load.seed}, {name}")  # whatever was sent before
        prompt = " ".join(words.choices(WORDS, k=num_words))
        stream = await ask(client, model, prompt, max_tokens)
        stream.name = name
        result.streams.append(stream)
        on_answer(stream)

    async def chats(index: int) -> None:
        for number in range(load.chats_per_stream):
            await send(f"chat {index}.{number}", 12, load.chat_tokens)

    async def long_prompt(index: int) -> None:
        await asyncio.sleep(load.first_long_s + index * load.long_every_s)
        await send(f"long {index}", load.long_words, load.long_tokens)

    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        tasks = [chats(i) for i in range(load.num_streams)]
        await asyncio.gather(*tasks, *(long_prompt(i) for i in range(load.num_long)))
    result.ended_s = max(stream.times.token_times_s[-1] for stream in result.streams)
    result.streams.sort(key=lambda stream: stream.times.arrival_s)
    return result
