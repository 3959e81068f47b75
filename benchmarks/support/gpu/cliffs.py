"""Step time against tokens in a batch: measured directly, and as our model learned it."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median

import httpx
from support.gpu.load import warm_up
from support.gpu.record import Figures, Record
from support.gpu.session import Running, Session
from support.gpu.setup import Setup, our_flags
from support.replay import send

from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.report.lines import Step, Work
from vllm_sarathi.simulator.results.tables import table

PART = "cliffs"
KEY = f"{PART}, stock"
STEP, TILE = 8, 64
RISE = 0.05  # of the time per token, which falls or stays wherever no tile ends
FIRST_TOKEN_ID, LAST_TOKEN_ID = 1000, 40_000
Curve = dict[int, float]


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Stock's decisions, with a step log."""
    flags = our_flags(setup.settings[0], {"preset": "observe"})
    yield Session(flags, {KEY: measure}, warm_up, logs_steps=True)


def token_counts(largest: int) -> list[int]:
    """Multiples of 8 up to a tile, then those just before, at and beyond each tile's end."""
    small = range(STEP, min(TILE, largest) + 1, STEP)
    edges = (tile + by for tile in range(TILE, largest + 1, TILE) for by in (-STEP, 0, STEP))
    return sorted({*small, *edges})


def measure(running: Running) -> Figures:
    """Prompts of each length, one at a time and shuffled, a first round not counted."""
    counts = token_counts(running.setup.sizes.largest_prefill)
    asyncio.run(prefill(running, counts))
    num_warm, rounds = len(running.steps()), running.setup.sizes.repeats
    for seed in range(rounds):
        asyncio.run(prefill(running, random.Random(seed).sample(counts, len(counts))))
    steps = running.steps()[num_warm:]
    return {"measured_s": medians(steps, counts), "learned_s": learned(running.steps(), counts)}


async def prefill(running: Running, counts: Iterable[int]) -> None:
    """Ask for one token after so many."""
    server, name = running.server, running.setup.model
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        for num in counts:
            draw = random.Random(num)
            ids = [draw.randrange(FIRST_TOKEN_ID, LAST_TOKEN_ID) for _ in range(num)]
            await send(client, name, ids, 1)


def medians(steps: Iterable[Step], counts: Sequence[int]) -> Curve:
    """Median duration of a step of prefill alone, by its tokens."""
    found: defaultdict[int, list[float]] = defaultdict(list)
    for step in steps:
        if step.duration_s and not step.num_decodes:
            found[step.num_prefill_tokens].append(step.duration_s)
    return {num: median(found[num]) for num in counts if num in found}


def learned(steps: Iterable[Step], counts: Sequence[int]) -> Curve:
    """What our model, having seen these steps in their order, predicts of prefills alone."""
    model = StepTimeModel()
    for step in steps:
        if step.duration_s:
            model.observe(work_of(step), step.duration_s)
    return {num: model.predict(StepWork(num, num * num / 2)) for num in counts}


def work_of(step: Step) -> StepWork:
    """What of a logged step decides its duration."""
    work = step.work or Work()
    return StepWork(work.num_tokens, work.chunk_context, int(work.decode_context))


def cliffs(curve: Mapping[int, float]) -> dict[int, float]:
    """Sizes beyond which a few tokens more cost more than their share: how much longer a step is.

    Where a batch only gets larger, its time per token falls or stays.
    """
    return {
        small: curve[large] / curve[small] - 1
        for small, large in pairwise(sorted(curve))
        if curve[large] / large > (1 + RISE) * curve[small] / small
    }


def by_tokens(curve: Mapping[str, float]) -> Curve:
    """A curve as JSON gives it back."""
    return {int(num): time_s for num, time_s in curve.items()}


def tables(setup: Setup, record: Record) -> str:
    """Markdown: cliffs by whoever found them, then both curves."""
    (found,) = [figures for _, figures in record.of(PART)]
    curves = {"measured": by_tokens(found["measured_s"]), "learned": by_tokens(found["learned_s"])}
    mixed = record.results.get("model, sarathi")
    if mixed:
        curves["learned under mixed load"] = by_tokens(mixed["learned"])
    lost = {name: cliffs(curve) for name, curve in curves.items()}
    edges = sorted({num for of in lost.values() for num in of})
    jumps = [[f"beyond {num}", *(jump(of.get(num)) for of in lost.values())] for num in edges]
    rows = [
        [num, *(1e3 * curve[num] if num in curve else None for curve in curves.values())]
        for num in sorted(curves["measured"])
    ]
    head = table(("cliff, tokens", *curves), jumps) if jumps else "No cliff was found."
    times = table(("tokens", *(f"{name}, ms" for name in curves)), rows)
    rule = f"A cliff is where the time per token rises by more than {RISE:.0%}."
    return f"{rule} The figures are how much longer the step is.\n\n{head}\n\n{times}"


def jump(rise: float | None) -> str | None:
    """How much longer, in per cent."""
    return None if rise is None else f"{rise:+.0%}"
