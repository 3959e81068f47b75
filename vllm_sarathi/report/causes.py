"""Why a gap between two tokens was long, told from the steps within it."""

from collections.abc import Sequence
from enum import Enum

from vllm_sarathi.report.lines import Step, Waits
from vllm_sarathi.report.series import Ended
from vllm_sarathi.report.words import duration, plural


class Cause(Enum):
    """What made a gap as long as it was; the value names it in a list."""

    FAULT = "a fault in the scheduler"
    PREEMPTED = "preempted, prefilled again"
    NO_STEP = "no step ran"
    ENGINE_CORE = "the engine core was busy between two steps"
    MISPREDICTED = "a step took much longer than predicted"
    OVERRUN = "a step took a little longer than predicted"
    NOT_LEARNED = "step times were not learned yet"
    PAUSED = "decodes paused for steps of prefill"
    NOT_SCHEDULED = "not scheduled for some steps"
    PREFILL = "prefill in the same batch, as planned"
    DECODES = "the decodes alone take so long"


MAIN_SHARE = 0.4
"""Share of a gap that one thing has to fill to be its cause."""


def cause_of(
    waits: Waits, inside: Sequence[Ended], num_stages: int, had_fault: bool
) -> tuple[Cause, str]:
    """The cause of a gap, and a sentence about it.

    Args:
        waits: what is known of the gap: the longest of its class in the last step.
        inside: steps that ended within it, the last one brought the token.
        num_stages: pipeline stages: so many steps run at once.
        had_fault: whether an exception was logged within it.
    """
    gap_s, last = waits.longest_s, inside[-1].step
    if had_fault:
        return Cause.FAULT, "An exception in the scheduler fell into it."
    if waits.was_preempted:
        return Cause.PREEMPTED, (
            f"The request was preempted for lack of KV blocks ({last.kv_usage:.0%} of the cache in "
            f"use) and prefilled again over {plural(len(inside), 'step')}."
        )
    busy_s = sum(ended.step.duration_s or ended.step.predicted_s for ended in inside)
    if num_stages == 1 and gap_s - busy_s > MAIN_SHARE * gap_s:
        return Cause.NO_STEP, f"For {duration(gap_s - busy_s)} no step ran: outside the scheduler."
    between_s = max(ended.step.between_s for ended in inside)
    if between_s > MAIN_SHARE * gap_s:
        return Cause.ENGINE_CORE, (
            f"The engine core was busy for {duration(between_s)} between two steps, on the CPU and "
            "outside the model."
        )
    return _of_steps(waits, inside, num_stages)


def _of_steps(waits: Waits, inside: Sequence[Ended], num_stages: int) -> tuple[Cause, str]:
    gap_s, objective_s = waits.longest_s, waits.objective_s
    steps = [ended.step for ended in inside]
    longest = max(steps, key=lambda step: step.duration_s or 0.0)
    excess = max(steps, key=_excess_s)
    if _excess_s(excess) * num_stages > MAIN_SHARE * gap_s:
        return Cause.MISPREDICTED, (
            f"A step of {batch(excess)} took {duration(excess.duration_s)} where "
            f"{duration(excess.predicted_s)} were predicted."
        )
    if not longest.predicted_s and longest.duration_s:
        return Cause.NOT_LEARNED, (
            f"A step of {batch(longest)} took {duration(longest.duration_s)}, before any step "
            "time was learned."
        )
    if num_stages > 1:
        return _of_round(steps, longest, num_stages)
    if len(steps) > 1:
        return _of_pause(steps)
    if objective_s and longest.predicted_s < objective_s < gap_s:
        return Cause.OVERRUN, (
            f"A step of {batch(longest)} took {duration(longest.duration_s)}; the "
            f"{duration(longest.predicted_s)} predicted would have been in time."
        )
    return _as_planned(longest), (
        f"A step of {batch(longest)} took {duration(longest.duration_s)}, "
        f"{duration(longest.predicted_s)} predicted{_because(longest, waits)}."
    )


def _of_pause(steps: Sequence[Step]) -> tuple[Cause, str]:
    """Why a token came with the last of these steps only."""
    paused, last = [step for step in steps[:-1] if step.num_decodes_paused], steps[-1]
    num_tokens = sum(step.num_prefill_tokens for step in paused or steps[:-1])
    if paused:
        return Cause.PAUSED, (
            f"Its decode paused for {plural(len(paused), 'step')} of {num_tokens:,} prefill tokens "
            f"together, then ran in one of {batch(last)}."
        )
    return Cause.NOT_SCHEDULED, (
        f"{plural(len(steps) - 1, 'step')} of {num_tokens:,} prefill tokens together ran without "
        f"it, then one of {batch(last)} with it."
    )


def _of_round(steps: Sequence[Step], longest: Step, num_stages: int) -> tuple[Cause, str]:
    """Why a token took so long through a pipeline."""
    took = f"the longest of {batch(longest)}, {duration(longest.duration_s)} a stage"
    if len(steps) > num_stages + 1:  # a result may fall on each end of it
        return Cause.NOT_SCHEDULED, (
            f"{plural(len(steps), 'micro-batch', 'es')} passed, {took}: more than the "
            f"{num_stages} of a round."
        )
    return _as_planned(longest), f"One round of the pipeline: {took}."


def _as_planned(longest: Step) -> Cause:
    return Cause.PREFILL if longest.num_prefill_tokens else Cause.DECODES


def batch(step: Step) -> str:
    """What was in a step, in words."""
    decodes = plural(step.num_decodes, "decode")
    if not step.num_prefill_tokens:
        return decodes
    prefill = plural(step.num_prefill_tokens, "prefill token")
    return f"{prefill} and {decodes}" if step.num_decodes else prefill


def _excess_s(step: Step) -> float:
    known = step.duration_s is not None and step.predicted_s > 0
    return max((step.duration_s or 0.0) - step.predicted_s, 0.0) if known else 0.0


def _because(step: Step, waits: Waits) -> str:
    """Whether it could have been in time, and what bound it."""
    if waits.objective_s and step.predicted_s > waits.objective_s:
        return f": more than the objective of {duration(waits.objective_s)} allows"
    return "" if step.limit == "no_more_prefill" else f"; bound by {step.limit.replace('_', ' ')}"
