"""A line in the log every few seconds, from what the metrics counted meanwhile."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

_DETAILS = ("limit", "kind")
"""Labels by which the line tells figures apart; it adds up over others."""


def log_regularly(
    registry: CollectorRegistry, prefix: str, interval_s: float
) -> Callable[[], None]:
    """Log from a thread, until the returned call, while there is traffic.

    An exception is logged once and leaves the line out.

    Args:
        registry: the metrics of one engine core.
        prefix: what their names begin with.
        interval_s: time from line to line, in seconds.
    """
    is_closed = threading.Event()

    def log() -> None:
        before, has_failed = Counter[str](), False
        while not is_closed.wait(interval_s):
            try:
                now = figures(registry, prefix)
                line, before = summary(before, now), now
            except Exception:
                if not has_failed:
                    logger.exception("no SARATHI line in the log; only this failure is logged")
                has_failed, line = True, ""
            if line:
                logger.info("SARATHI: %s", line)

    threading.Thread(target=log, name="sarathi-summary", daemon=True).start()
    return is_closed.set


def figures(registry: CollectorRegistry, prefix: str) -> Counter[str]:
    """What the metrics say, as ``name`` or ``name/detail``."""
    found = Counter[str]()
    for family in registry.collect():
        for sample in family.samples:
            details = [sample.labels[label] for label in _DETAILS if label in sample.labels]
            found["/".join((sample.name.removeprefix(prefix), *details))] += sample.value  # type: ignore[assignment]  # floats
    return found


def summary(before: Counter[str], now: Counter[str]) -> str:
    """What happened between two times; nothing unless steps were scheduled and ended."""
    since = Counter({name: value - before[name] for name, value in now.items()})
    if not (since["measured_step_seconds_count"] and since["step_decode_tokens_count"]):
        return ""
    return ", ".join((_steps(since), *_objectives(since, now), *_events(since)))


def _steps(since: Counter[str]) -> str:
    num_steps = since["step_decode_tokens_count"]
    budget = _mean(since, "step_budget_tokens")
    limits = {name: n for name, n in since.items() if name.startswith("steps_total/")}
    limit = max(limits, key=lambda name: limits[name])
    bound = f"bound by {limit.partition('/')[2]} {limits[limit] / sum(limits.values()):.0%}"
    predicted = _mean(since, "predicted_step_seconds")
    return (
        f"{num_steps:.0f} steps of {_mean(since, 'step_decode_tokens') or 0:.1f} decode + "
        f"{_mean(since, 'step_prefill_tokens') or 0:.1f} prefill tokens "
        f"({f'budget {budget:.0f}, ' if budget else ''}{bound}), "
        f"step {1e3 * (_mean(since, 'measured_step_seconds') or 0):.1f} ms"
        + (f" (predicted {1e3 * predicted:.1f})" if predicted else "")
    )


def _objectives(since: Counter[str], now: Counter[str]) -> Iterator[str]:
    objective_s, num_late = now["tbt_objective_seconds"], since["late_tokens_total"]
    if objective_s:
        num_tokens = since["step_decode_tokens_sum"]  # of steps scheduled, not of those that ended
        share = f": {num_late / num_tokens:.1%} missed" if num_late and num_tokens else ""
        yield f"gap objective {1e3 * objective_s:.0f} ms{share}"
    for kind in ("ttft", "tpot", "e2e"):
        num_missed = since[f"objectives_missed_total/{kind}"]
        num_judged = num_missed + since[f"objectives_attained_total/{kind}"]
        if num_judged:
            yield f"{kind.upper()} missed {num_missed / num_judged:.1%}"


def _events(since: Counter[str]) -> Iterator[str]:
    events = {
        "relegated_requests_total": "relegated",
        "shed_requests_total": "shed",
        "faults_total": "faults",
    }
    yield from (f"{since[name]:.0f} {word}" for name, word in events.items() if since[name])


def _mean(since: Counter[str], name: str) -> float | None:
    """Mean of what a histogram counted."""
    count = since[f"{name}_count"]
    return since[f"{name}_sum"] / count if count else None
