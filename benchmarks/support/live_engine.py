"""An engine in a process of its own, which runs loads as they are asked for."""

import os
import random
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

VOCABULARY = 1000
START_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one shape: all at once, or at a mean rate by a Poisson process.

    Args:
        num_requests: how many.
        prompt_tokens: tokens of a prompt that it shares with none.
        output_tokens: tokens of an answer.
        rate: requests per second; None for all at once.
        num_prefixes: so many prefixes take turns in front of the prompts, in shuffled order.
        prefix_tokens: tokens of a prefix.
    """

    num_requests: int
    prompt_tokens: int
    output_tokens: int
    rate: float | None = None
    num_prefixes: int = 1
    prefix_tokens: int = 0

    @property
    def name(self) -> str:
        """What tables call it."""
        arrivals = f", {self.rate:g}/s" if self.rate else ""
        shared = f"{self.num_prefixes} prefixes of {self.prefix_tokens}, " * bool(
            self.prefix_tokens
        )
        sizes = f"{self.prompt_tokens} in, {self.output_tokens} out"
        return f"{shared * bool(self.prefix_tokens)}{self.num_requests} x {sizes}{arrivals}"

    def prompts(self, random_: random.Random) -> list[list[int]]:
        """Tokens of each prompt."""
        tokens = range(VOCABULARY)
        own = [random_.choices(tokens, k=self.prompt_tokens) for _ in range(self.num_requests)]
        if not self.prefix_tokens:
            return own
        prefixes = [random_.choices(tokens, k=self.prefix_tokens) for _ in range(self.num_prefixes)]
        found = [prefixes[i % self.num_prefixes] + prompt for i, prompt in enumerate(own)]
        random_.shuffle(found)
        return found

    def arrivals_s(self, random_: random.Random) -> list[float]:
        """When each request comes, from the beginning."""
        times, now_s = [], 0.0
        for _ in range(self.num_requests):
            times.append(now_s)
            now_s += random_.expovariate(self.rate) if self.rate else 0.0
        return times


def serve(pipe: Connection, arguments: dict[str, Any], environment: dict[str, str]) -> None:
    """Run loads as they are asked for."""
    os.environ.update(environment)
    from vllm import LLM

    llm = LLM(**arguments)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        pipe.send(run(llm.llm_engine, *asked))
    llm.llm_engine.engine_core.shutdown()


def run(engine: Any, load: Load, seed: int) -> tuple[float, list[list[int]]]:
    """Seconds that a load takes, and its tokens."""
    from vllm import SamplingParams

    random_ = random.Random(seed)
    params = SamplingParams(max_tokens=load.output_tokens, ignore_eos=True, temperature=0.0)
    prompts = load.prompts(random_)
    due = list(zip(load.arrivals_s(random_), range(load.num_requests), strict=True))
    tokens: list[list[int]] = [[] for _ in prompts]
    began_s = time.monotonic()
    while due or engine.has_unfinished_requests():
        while due and due[0][0] <= time.monotonic() - began_s:
            _, index = due.pop(0)
            engine.add_request(str(index), {"prompt_token_ids": prompts[index]}, params)
        if not engine.has_unfinished_requests():
            time.sleep(0.001)
            continue
        for output in engine.step():
            if output.finished:
                tokens[int(output.request_id)] = list(output.outputs[0].token_ids)
    return time.monotonic() - began_s, tokens


class LiveEngine:
    """An engine.

    Args:
        name: what errors call it.
        arguments: of vLLM's ``LLM``.
        environment: variables that only this engine sees.

    Raises:
        RuntimeError: it did not start in time.
    """

    def __init__(
        self, name: str, arguments: dict[str, Any], environment: dict[str, str] | None = None
    ) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, arguments, environment or {}))
        self.process.start()
        if not self.pipe.poll(START_LIMIT_S) or self.pipe.recv() != "ready":
            raise RuntimeError(f"the engine {name!r} did not start")

    def run(self, load: Load, seed: int) -> tuple[float, list[list[int]]]:
        """Seconds that a load takes, and its tokens."""
        self.begin(load, seed)
        return self.end()

    def begin(self, load: Load, seed: int) -> None:
        """Start a load and go on."""
        self.pipe.send((load, seed))

    def end(self) -> tuple[float, list[list[int]]]:
        """Wait for the load that was begun: seconds that it took, and its tokens."""
        found: tuple[float, list[list[int]]] = self.pipe.recv()
        return found

    def stop(self) -> None:
        """End the engine."""
        self.pipe.send(None)
        self.process.join(60)
        self.process.terminate()
