"""Objectives and goals, from command-line options."""

import argparse

from vllm_sarathi.cli.values import GOODPUT_KEYS
from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.goal import CapacityGoal

GOODPUT_SHARE = 0.99


def seconds(milliseconds: float | None) -> float | None:
    """Milliseconds as seconds."""
    return None if milliseconds is None else milliseconds / 1e3


def limits(options: argparse.Namespace) -> Objectives:
    """What the options limit by themselves, without ``--goodput``."""
    return Objectives(
        ttft_s=seconds(options.ttft_slo_ms),
        tpot_s=seconds(options.tpot_slo_ms),
        tbt_s=seconds(options.tbt_slo_ms),
    )


def objectives(options: argparse.Namespace) -> Objectives:
    """What every request has to meet to count for goodput.

    Raises:
        ValueError: a key of ``--goodput`` is given twice.
    """
    if not options.goodput:
        return limits(options)
    asked_ms = dict(options.goodput)
    if len(asked_ms) < len(options.goodput):
        given = " ".join(f"{key}:{ms:g}" for key, ms in options.goodput)
        raise ValueError(f"--goodput {given} must have each key once")
    ttft_s, tpot_s, e2e_s = (seconds(asked_ms.get(key)) for key in GOODPUT_KEYS)
    return Objectives(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)


def measured(options: argparse.Namespace) -> Objectives:
    """All that an engine is measured by: the tighter where two options limit the same."""
    both = limits(options), objectives(options)
    kinds = ("ttft_s", "tpot_s", "tbt_s", "e2e_s")
    found = {kind: [value for one in both if (value := getattr(one, kind))] for kind in kinds}
    return Objectives(**{kind: min(values) for kind, values in found.items() if values})


def goal_of(options: argparse.Namespace) -> CapacityGoal:
    """What has to hold within capacity."""
    if options.goodput_share is not None and not options.goodput:
        raise ValueError(
            f"--goodput-share {options.goodput_share:g} has no effect without --goodput: give it "
            "objectives, e.g. --goodput ttft:2000 tpot:50"
        )
    own = limits(options)
    return CapacityGoal(
        own.tbt_s,
        options.delay_s,
        goodput=(options.goodput_share or GOODPUT_SHARE) if options.goodput else None,
        objectives=objectives(options) if options.goodput else None,
        ttft_s=own.ttft_s,
        tpot_s=own.tpot_s,
    )
