"""How far predicted step times are off, and the deployment fitted to the same steps."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from support.gpu.cliffs import learned, token_counts, work_of
from support.gpu.load import poisson, sent, warm_up
from support.gpu.rate import gap_rate
from support.gpu.record import Figures, Record
from support.gpu.session import Running, Session
from support.gpu.setup import Setup, our_flags

from vllm_sarathi.latency import percentile
from vllm_sarathi.report.lines import Step
from vllm_sarathi.simulator import Fixed
from vllm_sarathi.simulator.machine.calibration import Step as Recorded
from vllm_sarathi.simulator.machine.calibration import fit
from vllm_sarathi.simulator.results.tables import table

PART = "model"
KEY = f"{PART}, sarathi"
KINDS = ("decode-only", "mixed", "prefill-only")
DECODE_TOKENS = 64


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Our server, with nothing set."""
    rate = gap_rate(setup, record)
    flags = our_flags(setup.settings[0], {})
    yield Session(flags, {KEY: partial(measure, rate=rate)}, warm_up, logs_steps=True)


def measure(running: Running, rate: float) -> Figures:
    """Send decodes, a mixture and prefills; compare each step with what was predicted of it."""
    sizes, num_warm = running.setup.sizes, len(running.steps())
    for num in sizes.decodes:
        sent(running, Fixed(16, DECODE_TOKENS).draw(num, np.random.default_rng(num)))
    poisson(running, rate, 0, sizes.seconds)
    for num_prompt in (sizes.long_prompt // 8, sizes.long_prompt, 2 * sizes.long_prompt):
        prefills = Fixed(num_prompt, 1).draw(2 * sizes.repeats, np.random.default_rng(num_prompt))
        sent(running, prefills, at_once=1)
        sent(running, prefills)
    steps = running.steps()[num_warm:]
    fitted = fit([Recorded(work_of(step), step.duration_s) for step in steps if step.duration_s])
    begin = running.begin()
    deployment = fitted.deployment(
        running.setup.name,
        begin.num_kv_tokens or 0,
        begin.max_model_len or 0,
        begin.kv_windows,
    )
    return {
        "errors": {kind: errors(steps, kind) for kind in KINDS},
        "fit": fitted.figures(),
        "deployment": deployment.to_json(),
        "learned": learned(running.steps(), token_counts(sizes.largest_prefill)),
    }


def kind_of(step: Step) -> str:
    """What a step ran."""
    if not step.num_prefill_tokens:
        return KINDS[0]
    return KINDS[1] if step.num_decodes else KINDS[2]


def errors(steps: Iterable[Step], kind: str) -> Figures:
    """Predicted over measured time, less 1, of steps of a kind."""
    signed = [
        step.predicted_s / step.duration_s - 1
        for step in steps
        if kind_of(step) == kind and step.duration_s and step.predicted_s > 0
    ]
    sizes: Sequence[float] = [abs(error) for error in signed]
    return {
        "steps": len(signed),
        "median": percentile(sizes, 50),
        "p90": percentile(sizes, 90),
        "bias": percentile(signed, 50),
    }


def tables(setup: Setup, record: Record) -> str:
    """Markdown."""
    (found,) = [figures for _, figures in record.of(PART)]
    rows = [
        [kind, of["steps"], share(of["median"]), share(of["p90"]), share(of["bias"], "+")]
        for kind, of in found["errors"].items()
    ]
    text = table(("steps with", "number", "median error", "p90", "median, signed"), rows)
    return (
        "Each prediction was made before its step ran, by the model as it then was, after a "
        f"warm-up.\n\n{text}"
    )


def share(value: float | None, sign: str = "") -> str | None:
    """A share in per cent."""
    return None if value is None else f"{value:{sign}.1%}"
