"""Greedy tokens of ours beside stock's; only of real weights."""

import asyncio
import random
from collections.abc import Iterator, Sequence

import httpx
from support.gpu.load import warm_up
from support.gpu.record import Figures, Record
from support.gpu.session import Running, Session
from support.gpu.setup import Setup, engine_flags, our_flags
from support.http_load import WORDS

from vllm_sarathi.simulator.results.tables import table

PART = "greedy"
QUESTIONS = (
    "The capital of France is",
    "Write a haiku about rain.",
    "1, 1, 2, 3, 5, 8,",
    "Translate to German: good morning",
    "def fibonacci(n):",
)
LONG_WORDS, NUM_TOKENS = 400, 32
Tokens = list[list[int]]
ALONE, TOGETHER = "one at a time", "all at once"


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Stock twice, for its tokens may depend on the batch, and ours."""
    if not setup.has_weights:
        return
    limits = setup.settings[0]
    arms = {
        "stock": engine_flags(limits),
        "stock again": engine_flags(limits),
        "sarathi": our_flags(limits, {}),
    }
    for name, flags in arms.items():
        yield Session(flags, {f"{PART}, {name}": measure}, warm_up)


def prompts(num: int) -> list[str]:
    """Questions, every other one behind a long preface."""
    draw = random.Random(0)
    prefaces = (" ".join(draw.choices(WORDS, k=LONG_WORDS)) * (i % 2) for i in range(num))
    return [f"{preface} {i}. {QUESTIONS[i % len(QUESTIONS)]}" for i, preface in enumerate(prefaces)]


def measure(running: Running) -> Figures:
    """The tokens of each prompt, asked one at a time and all at once."""
    texts = prompts(running.setup.sizes.answers)
    return {ALONE: asyncio.run(ask(running, texts, 1)), TOGETHER: asyncio.run(ask(running, texts))}


async def ask(
    running: Running, texts: Sequence[str], at_once: int | None = None
) -> list[list[int]]:
    """Tokens that answer each prompt."""
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(
        base_url=running.server.url, timeout=None, limits=limits
    ) as client:

        async def tokens(text: str) -> list[int]:
            body = {
                "model": running.setup.model, "prompt": text, "max_tokens": NUM_TOKENS,
                "temperature": 0.0, "return_token_ids": True,
            }  # fmt: skip
            answer = (await client.post("/v1/completions", json=body)).raise_for_status()
            found: list[int] = answer.json()["choices"][0]["token_ids"]
            return found

        return list(await asyncio.gather(*(tokens(text) for text in texts)))


def tables(setup: Setup, record: Record) -> str:
    """Markdown: how many prompts have stock's tokens."""
    found = {words[0]: figures for words, figures in record.of(PART)}
    stock = found.pop("stock")
    rows = [[name, *(equal(of[how], stock[how]) for how in (ALONE, TOGETHER))]
            for name, of in found.items()]  # fmt: skip
    note = (
        f"Prompts whose {NUM_TOKENS} greedy tokens are those of stock. Kernels may round otherwise "
        "in another batch: stock beside itself is what to compare with."
    )
    return f"{note}\n\n{table(('server', ALONE, TOGETHER), rows)}"


def equal(tokens: Sequence[list[int]], others: Sequence[list[int]]) -> str:
    """How many are equal, of how many."""
    return f"{sum(a == b for a, b in zip(tokens, others, strict=True))} of {len(others)}"
