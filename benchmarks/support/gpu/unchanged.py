"""``preset: observe`` beside stock vLLM: the same decisions, so the same figures."""

from collections.abc import Iterator
from functools import partial

from support.gpu.load import latencies, sent, warm_up
from support.gpu.record import Figures, Record
from support.gpu.session import Running, Session
from support.gpu.setup import Setup, engine_flags, our_flags
from support.gpu.turns import by_seed, turns

from vllm_sarathi.simulator.results.comparison import interval, paired_ratio
from vllm_sarathi.simulator.results.tables import table

PART = "observe"
STOCK, OBSERVE = "stock", "observe"
COLUMNS = ("output tokens/s", "gap p50 ms", "gap p99 ms", "TTFT short p50 ms", "TTFT long p50 ms")


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Both once per seed."""
    limits = setup.settings[0]
    servers = {
        STOCK: engine_flags(limits),
        OBSERVE: our_flags(limits, {"preset": "observe"}),
    }
    for seed, arm in turns(servers, setup.seeds):
        key = f"{PART}, {arm}, seed {seed}"
        yield Session(servers[arm], {key: partial(measure, seed=seed)}, warm_up)


def measure(running: Running, seed: int) -> Figures:
    """So many requests at any time: throughput is what the server can do."""
    sizes = running.setup.sizes
    requests = running.setup.requests(sizes.burst, seed)
    return latencies(running, sent(running, requests, seed=seed, at_once=sizes.most_running))


def tables(setup: Setup, record: Record) -> str:
    """Markdown: each figure of both, and the ratio over pairs of the same seed."""
    rows = []
    for name in COLUMNS:
        stock, ours = (by_seed(record, (PART, arm), name) for arm in (STOCK, OBSERVE))
        both = [seed for seed in stock if seed in ours]
        ratio = paired_ratio([ours[seed] for seed in both], [stock[seed] for seed in both])
        rows.append([name, interval(list(stock.values())), interval(list(ours.values())), ratio])
    head = ("figure", STOCK, OBSERVE, "observe / stock")
    return f"{setup.sizes.most_running} requests at any time.\n\n{table(head, rows)}"
