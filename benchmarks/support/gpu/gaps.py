"""Gaps between tokens within objectives: ours, and stock with each static setting."""

from collections.abc import Iterator, Mapping
from functools import partial

from support.gpu.load import latencies, poisson, warm_up
from support.gpu.rate import gap_rate
from support.gpu.record import Figures, Record
from support.gpu.session import Running, Session
from support.gpu.setup import Setup, engine_flags, our_flags
from support.gpu.turns import column, turns

from vllm_sarathi.simulator.results.comparison import interval
from vllm_sarathi.simulator.results.tables import table

PART = "gaps"
COLUMNS = (
    "gap p50 ms", "gap p99 ms", "gap max ms", "gaps above 25 ms", "gaps above 50 ms",
    "gaps above 100 ms", "TTFT short p50 ms", "TTFT short p99 ms", "TTFT long p50 ms",
    "TTFT long p99 ms", "output tokens/s",
)  # fmt: skip


def arms(setup: Setup) -> Mapping[str, tuple[str, ...]]:
    """Flags of each server."""
    limits = setup.settings[0]
    ours = {f"sarathi {ms} ms": {"tbt_slo_ms": ms} for ms in setup.sizes.gaps_ms}
    return {
        **{f"stock {setting}": engine_flags(setting) for setting in setup.settings},
        **{name: our_flags(limits, asked) for name, asked in ours.items()},
        "sarathi": our_flags(limits, {}),
    }


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Each arm once per seed, with the seed's requests."""
    rate = gap_rate(setup, record)
    servers = arms(setup)
    for seed, arm in turns(servers, setup.seeds):
        load = partial(measure, rate=rate, seed=seed)
        yield Session(servers[arm], {f"{PART}, {arm}, seed {seed}": load}, warm_up)


def measure(running: Running, rate: float, seed: int) -> Figures:
    """One load."""
    result = poisson(running, rate, seed, running.setup.sizes.seconds)
    return latencies(running, result)


def tables(setup: Setup, record: Record) -> str:
    """Markdown: means with their intervals."""
    rows = [
        [arm, *(interval(column(record, (PART, arm), name)) for name in COLUMNS)]
        for arm in dict.fromkeys(words[0] for words, _ in record.of(PART))
    ]
    rate = gap_rate(setup, record)
    return (
        f"{rate:.2f} requests/s. Stock is named by max_num_batched_tokens/max_num_seqs, ours by "
        "its gap objective, if any. Gaps above a limit are a share. Means over seeds with 95% "
        f"intervals.\n\n{table(('server', *COLUMNS), rows)}"
    )
