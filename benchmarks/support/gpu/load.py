"""Loads by `vllm bench serve`, and their figures."""

from collections.abc import Sequence
from itertools import chain
from math import inf
from typing import Any

import numpy as np
from support.bench_client import as_json, bench, goodput_flags, share_in_time, trace_flags
from support.bench_client import write_trace as write
from support.gpu.record import Figures, without_places
from support.gpu.session import Running
from support.gpu.setup import OBJECTIVES

from vllm_sarathi.latency import percentile
from vllm_sarathi.simulator import Fixed, Lengths

WARM_UP_SEED = 9000
CLIENT_LIMIT_S = 540  # below the limit of a load, so that the client's own words are kept
LIMITS_MS = (25, 50, 100)
PERCENTS = (50, 90, 99, 99.9, 100)


def sent(
    running: Running, lengths: Lengths, rate: float = inf, seed: int = 0, at_once: int | None = None
) -> dict[str, Any]:
    """What the client saves of a load: Poisson arrivals, or all at once, so many in flight."""
    trace = running.folder / "trace.jsonl"
    write(lengths, trace)
    bound = () if at_once is None else ("--max-concurrency", str(at_once))
    flags = (
        *trace_flags(trace, len(lengths.num_prompt), rate, seed),
        *goodput_flags(OBJECTIVES),
        *("--ignore-eos", "--ready-check-timeout-sec", "60", *bound),
    )
    return bench(running.server, running.setup.model, flags, CLIENT_LIMIT_S)


def warm_up(running: Running) -> Figures:
    """Compile what is compiled late, and let our scheduler learn the times of steps."""
    sizes = running.setup.sizes
    sent(running, running.setup.requests(sizes.warm_up, WARM_UP_SEED), seed=WARM_UP_SEED)
    sent(running, Fixed(16, 32).draw(8, np.random.default_rng(0)), seed=WARM_UP_SEED)
    return {}


def poisson(running: Running, rate: float, seed: int, seconds: float) -> dict[str, Any]:
    """A load at a rate: the same requests and arrivals for each server."""
    num = max(8, round(rate * seconds))
    return sent(running, running.setup.requests(num, seed), rate, seed)


def burst(running: Running) -> Figures:
    """Requests per second that stock's default serves of those that come at once."""
    result = sent(running, running.setup.requests(running.setup.sizes.burst, 0))
    return {"rate": result["completed"] / result["duration"], **latencies(running, result)}


def latencies(running: Running, result: dict[str, Any]) -> Figures:
    """Gaps, first tokens of short and long prompts apart, and throughput."""
    served = [not error for error in result["errors"]]
    if not any(served):
        first = next(iter(result["errors"]), "no request was sent")
        raise RuntimeError(f"no request was served: {first.strip().splitlines()[-1]}")
    gaps_ms = [1e3 * gap for gap in chain.from_iterable(result["itls"])]
    ttfts_ms: dict[str, list[float]] = {"short": [], "long": []}
    for ok, num_prompt, ttft_s in zip(served, result["input_lens"], result["ttfts"], strict=True):
        if ok:
            is_long = num_prompt >= running.setup.sizes.long_prompt
            ttfts_ms["long" if is_long else "short"].append(1e3 * ttft_s)
    return {
        **quantiles("gap", gaps_ms, PERCENTS),
        **{f"gaps above {limit} ms": above(gaps_ms, limit) for limit in LIMITS_MS},
        **quantiles("TTFT short", ttfts_ms["short"], (50, 99)),
        **quantiles("TTFT long", ttfts_ms["long"], (50, 99)),
        "output tokens/s": result["output_throughput"],
        "failed": result["failed"],
        "in time": share_in_time(result),
    }


def quantiles(name: str, values_ms: Sequence[float], percents: Sequence[float]) -> Figures:
    """Percentiles under their names; those of nothing are None."""
    return {
        f"{name} {f'p{p:g}' if p < 100 else 'max'} ms": percentile(values_ms, p) for p in percents
    }


def above(values: Sequence[float], limit: float) -> float | None:
    """Share above a limit; of nothing it is None."""
    return sum(value > limit for value in values) / len(values) if values else None


def requests_of(result: dict[str, Any]) -> Figures:
    """Each request, as the client saw it; of an error the last line."""
    errors = [without_places(error.strip().rpartition("\n")[2]) for error in result["errors"]]
    return {"requests": {**as_json(result), "errors": errors}}
