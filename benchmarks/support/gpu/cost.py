"""What our scheduler costs: microseconds a step in the engine core, and steps of real engines."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from overhead import measure
from support.gpu.load import sent, warm_up
from support.gpu.record import Figures, Record
from support.gpu.session import Job, Running, Session, apart
from support.gpu.setup import Setup, our_flags

from vllm_sarathi.latency import percentile
from vllm_sarathi.simulator import Fixed
from vllm_sarathi.simulator.results.tables import table
from vllm_sarathi.simulator.run import quiet_vllm

PART = "cost"
SCHEDULERS = ("stock", "sarathi", "sarathi with objectives")
ENGINES = {"stock": {"preset": "observe"}, "sarathi": {}}
WAITING = 0


def sessions(setup: Setup, record: Record) -> Iterator[Session | Job]:
    """The scheduler alone on this machine's CPU, then decodes on real engines."""
    for running in setup.sizes.running:
        yield Job(f"{PART}, alone, {running}", partial(alone, running))
    for name, settings in ENGINES.items():
        flags = our_flags(setup.settings[0], settings)
        yield Session(flags, {f"{PART}, engine, {name}": in_engine}, warm_up, logs_steps=True)


def alone(running: int) -> Figures:
    """Of each scheduler with so many decodes, asynchronous and without a model."""
    return {"us": [1e3 * time_ms for time_ms in apart(quietly, running)]}


def quietly(running: int) -> list[float]:
    """Milliseconds of each, without vLLM's log."""
    with quiet_vllm():
        return measure(True, running, WAITING)


def in_engine(running: Running) -> Figures:
    """Decode-only steps with as many decodes throughout."""
    num, num_warm = running.setup.sizes.most_running, len(running.steps())
    sent(running, Fixed(32, 256).draw(num, np.random.default_rng(0)))
    steps = [
        step
        for step in running.steps()[num_warm:]
        if step.num_decodes == num and not step.num_prefill_tokens and step.duration_s
    ]
    return {
        "decodes": num,
        "steps": len(steps),
        "step ms": percentile([1e3 * (step.duration_s or 0.0) for step in steps], 50),
        "between us": percentile([1e6 * step.between_s for step in steps], 50),
    }


def tables(setup: Setup, record: Record) -> str:
    """Markdown."""
    rows = []
    for words, found in record.of(PART, "alone"):
        stock, *ours = found["us"]
        ratios = [f"{us:.0f} ({us / stock:.2f})" for us in ours]
        rows.append([words[0], f"{stock:.0f}", *ratios])
    head = (
        "decodes",
        f"{SCHEDULERS[0]}, us",
        *(f"{name}, us (to stock)" for name in SCHEDULERS[1:]),
    )
    of_engines = [
        [name[0], *(found[figure] for figure in ("decodes", "steps", "step ms", "between us"))]
        for name, found in record.of(PART, "engine")
    ]
    labels = ("decisions of", "decodes", "steps", "median step, ms", "engine core between, us")
    return (
        "The scheduler alone, `schedule()` and `update_from_output()` of a step, lower decile:\n\n"
        f"{table(head, rows)}\n\n"
        'Decode-only steps of real engines, both with a step log. "Between" is from a result to '
        "the end of the schedule after it; with asynchronous scheduling the GPU works meanwhile, "
        "and what it idles shows in the step.\n\n"
        f"{table(labels, of_engines)}"
    )
