"""Requests in time against the rate, through overload, and the capacity that follows."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise

from support.gpu.load import latencies, poisson, requests_of, warm_up
from support.gpu.rate import served_rate
from support.gpu.record import Figures, Record
from support.gpu.session import Running, Session
from support.gpu.setup import OBJECTIVES, Setup, engine_flags, our_flags
from support.gpu.turns import by_seed, column, turns

from vllm_sarathi.simulator.results.comparison import interval, paired_ratio
from vllm_sarathi.simulator.results.tables import table

PART = "goodput"
OURS = "sarathi"
HELD = 0.9
IN_TIME = "in time"
RUNS_APART = 100  # seeds of loads at different rates


def asked() -> dict[str, float]:
    """Our settings."""
    return {f"{kind}_slo_ms": 1e3 * limit_s for kind, limit_s in OBJECTIVES.by_kind_s.items()}


def arms(setup: Setup) -> Mapping[str, tuple[str, ...]]:
    """Flags of each server."""
    stock = {f"stock {setting}": engine_flags(setting) for setting in setup.settings}
    return {**stock, OURS: our_flags(setup.settings[0], asked())}


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Each arm once per seed, with all rates from low to high."""
    served, servers = served_rate(record), arms(setup)
    for seed, arm in turns(servers, setup.seeds):
        loads = {
            f"{PART}, {arm}, {multiple:g}x, seed {seed}": partial(
                measure, rate=multiple * served, seed=RUNS_APART * index + seed
            )
            for index, multiple in enumerate(setup.sizes.multiples)
        }
        yield Session(servers[arm], loads, warm_up)


def measure(running: Running, rate: float, seed: int) -> Figures:
    """One load, its requests kept for the simulator."""
    result = poisson(running, rate, seed, running.setup.sizes.seconds)
    return {"rate": rate, **latencies(running, result), **requests_of(result)}


def capacity(shares: Mapping[float, float]) -> float | None:
    """The highest rate up to which 90% are in time, linear between the rates that ran.

    None where the lowest rate has fewer; the highest rate where all have as many.
    """
    rates = sorted(shares)
    if not rates or shares[rates[0]] < HELD:
        return None
    for low, high in pairwise(rates):
        if shares[high] < HELD:
            along = (shares[low] - HELD) / (shares[low] - shares[high])
            return low + along * (high - low)
    return rates[-1]


def capacities(runs: Iterable[tuple[list[str], Figures]]) -> dict[str, float | None]:
    """By seed, from the runs of one arm: their keys end in load and seed."""
    shares: dict[str, dict[float, float]] = {}
    for words, figures in runs:
        shares.setdefault(words[-1], {})[figures["rate"]] = figures[IN_TIME]
    return {seed: capacity(of) for seed, of in shares.items()}


def tables(setup: Setup, record: Record) -> str:
    """Markdown: share in time by load, ours beside the best stock setting, and capacities."""
    found = list(record.of(PART))
    names = list(dict.fromkeys(words[0] for words, _ in found))
    loads = list(dict.fromkeys(words[1] for words, _ in found))
    rows = []
    for load in loads:
        means = {name: interval(column(record, (PART, name, load), IN_TIME)) for name in names}
        rate = next(figures["rate"] for words, figures in found if words[1] == load)
        rows.append([f"{load} ({rate:.2f}/s)", *means.values(), beside_best(record, names, load)])
    held = [interval(list(capacities(record.of(PART, name)).values())) for name in names]
    limits = ["capacity, requests/s", *held, None]
    head = ("load", *names, "ours / best stock")
    ttft, tpot = asked().values()
    return (
        f"Share of requests with TTFT within {ttft:g} ms and TPOT within {tpot:g} ms, as `vllm "
        f"bench serve --goodput` counts it; 1x is what stock {setup.settings[0]} serves of a "
        f"burst. Capacity is where {HELD:.0%} are in time, or the highest rate that ran. The best "
        f"stock setting is another one at each load.\n\n{table(head, [*rows, limits])}"
    )


def beside_best(record: Record, names: Iterable[str], load: str) -> str | None:
    """Ours over the stock setting with the highest mean at a load, seed by seed."""
    means = {
        name: found.mean
        for name in names
        if (found := interval(column(record, (PART, name, load), IN_TIME)))
    }
    stock = [name for name in means if name != OURS]
    if OURS not in means or not stock:
        return None
    best = max(stock, key=means.__getitem__)
    ours = by_seed(record, (PART, OURS, load), IN_TIME)
    theirs = by_seed(record, (PART, best, load), IN_TIME)
    both = [seed for seed in ours if seed in theirs]
    ratio = paired_ratio([ours[seed] for seed in both], [theirs[seed] for seed in both])
    return None if ratio is None else f"{ratio} ({best})"
