"""The rate from which all loads follow: what stock vLLM's default serves of a burst."""

from collections.abc import Iterator

from support.gpu.load import burst, warm_up
from support.gpu.record import Record
from support.gpu.session import Session
from support.gpu.setup import Setup, engine_flags

from vllm_sarathi.simulator.results.tables import table

PART = "rate"
KEY = f"{PART}, stock"


def sessions(setup: Setup, record: Record) -> Iterator[Session]:
    """Stock vLLM with its default limits."""
    yield Session(engine_flags(setup.settings[0]), {KEY: burst}, warm_up)


def served_rate(record: Record) -> float:
    """Requests per second."""
    return float(record.get(KEY)["rate"])


def gap_rate(setup: Setup, record: Record) -> float:
    """Requests per second of the loads that no server is to be short of time for."""
    return setup.sizes.gap_load * served_rate(record)


def tables(setup: Setup, record: Record) -> str:
    """Markdown."""
    (found,) = [figures for _, figures in record.of(PART)]
    row = [setup.settings[0], found["rate"], found["output tokens/s"]]
    return table(("stock vLLM", "requests/s of a burst", "output tokens/s"), [row])
