"""What a table of figures does not say, in words."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.comparison import column
from vllm_sarathi.simulator.results.tables import REPLAYED

# Percentiles that a replay is judged by.
REPLAYED_LATENCIES = [one for one in REPLAYED if "_p" in one[0]]
ByEngine = dict[str, list[dict[str, Any] | None]]


def on_range(largest: StepWork) -> str:
    """How far the steps went that a cost was fitted to."""
    return (
        f"Seen: steps of at most {largest.num_tokens:,.0f} tokens, {largest.chunk_context:,.0f} "
        f"query-key pairs of chunks, {largest.decode_context:,.0f} tokens of decodes' context. "
        "Beyond that, times are extrapolated."
    )


def on_deployment(deployment: Deployment, by_engine: ByEngine) -> list[str]:
    """What the deployment's own numbers are worth.

    A line where step times are estimated, and one for each engine whose runs went beyond
    what the deployment was calibrated on.
    """
    lines = []
    if deployment.source.startswith("estimated"):
        lines.append(f"step times of {deployment.name} are {deployment.source}")
    if deployment.largest_step is None:
        return lines
    for name, runs in by_engine.items():
        figures = [(run or {}).get("at_capacity") or run or {} for run in runs]
        steps = sum(one.get("steps", 0) for one in figures)
        beyond = sum(one.get("extrapolated_steps", 0) for one in figures)
        if beyond:
            lines.append(
                f"{name}: {beyond / steps:.1%} of the steps are larger than any that "
                f"{deployment.name!r} was calibrated on. {on_range(deployment.largest_step)}"
            )
    return lines


def on_replay(
    recorded: Sequence[dict[str, Any] | None], simulated: Sequence[dict[str, Any] | None]
) -> str:
    """How far the simulated figures of the recorded engine are from those recorded."""
    errors: dict[str, float] = {}
    for figure, heading in REPLAYED_LATENCIES:
        (was, *_), (is_, *_) = column(recorded, figure), column(simulated, figure)
        if was and is_ is not None:
            errors[heading] = is_ / was - 1
    if not errors:
        return ""
    worst = max(errors, key=lambda heading: abs(errors[heading]))
    return (
        f"Its {len(errors)} latencies are off by {median(map(abs, errors.values())):.1%} in the "
        f"median, at most by {errors[worst]:+.1%} ({worst})."
    )


def on_capacities(by_engine: ByEngine) -> str:
    """How far capacities can be off, and what stood in the way where none was found."""
    lines = [_error(by_engine)]
    for name, runs in by_engine.items():
        lines += [_why_none(name, run) for run in runs if run and run.get("capacity_rps") == 0]
    return "\n".join(filter(None, lines))


def _error(by_engine: ByEngine) -> str:
    """The error of the search, and of runs that begin with an empty engine."""
    found = [run for runs in by_engine.values() for run in runs if run and run.get("capacity_rps")]
    if not found:
        return ""
    requests = [run["at_capacity"]["offered_requests"] for run in found]
    warm_up = max(share for share in column(found, "warm_up_share") if share is not None)
    return (
        f"Each capacity is searched to {fmean(run['precision'] for run in found):.1%}, in runs of "
        f"{min(requests):,} to {max(requests):,} requests. At most {warm_up:.1%} of a run came "
        "while the engine filled up: capacities may be too high by about as much."
    )


def _why_none(name: str, run: dict[str, Any]) -> str:
    return (
        f"{name}, seed {run['seed']}: no rate meets the goal. "
        f"At {run['checked_rps']:.4g} requests/s, the lowest tried, {failed(run['checks'])}."
    )


def failed(checks: Sequence[dict[str, Any]]) -> str:
    """The conditions that are not met; that a run was cut off only if nothing else failed."""
    missed = [check for check in checks if not check["met"]]
    if len(missed) > 1:
        missed = [check for check in missed if check["figure"] != "finished_share"]
    return " and ".join(
        f"{check['figure']} is {_number(check['value'])} (allowed: {check['allowed']} "
        f"{check['limit']:.4g})"
        for check in missed
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
