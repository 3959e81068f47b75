"""What `/metrics` has to show under each layout of vLLM's processes."""

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from support.server import STOP_LIMIT_S, Server

NUM_SCRAPES = 12
"""Any of two API servers takes a connection: one gets none of so many once in 2000 times."""

OURS = "vllm_sarathi:"

Series = Counter[tuple[str, frozenset[tuple[str, str]]]]


def scrape(url: str) -> Series:
    """How often each series is in an answer."""
    text = httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text
    return Counter(
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


def metrics_of(server: Server, model: str) -> tuple[dict[str, int], dict[str, float]]:
    """What every scrape shows: number of vLLM's series by name and engine, and engines of ours."""
    found = [scrape(server.url) for _ in range(NUM_SCRAPES)]
    engines = {frozenset(check(one, model)) for one in found}
    assert len(engines) == 1, engines
    own = vllms_own(found[0])
    assert all(vllms_own(one) == own for one in found)
    (shown,) = engines
    return own, {"engines in each scrape": len(shown)} if shown else {}


def check(series: Series, model: str) -> set[str]:
    """Each series is there once, and ours have vLLM's labels; the engines that ours are of."""
    assert set(series.values()) == {1}, [one for one, times in series.items() if times > 1]
    ours = [(name, dict(labels)) for name, labels in series if name.startswith(OURS)]
    assert all(labels["model_name"] == model and "pid" not in labels for _, labels in ours)
    engines = {labels["engine"] for _, labels in ours}
    always = sorted(labels["engine"] for name, labels in ours if name == f"{OURS}settings_info")
    assert always == sorted(engines)
    return engines


def vllms_own(series: Series) -> dict[str, int]:
    """Number of all series but ours by name and engine; other labels may tell of settings."""
    names = (
        f"{name} {dict(labels).get('engine')}"
        for name, labels in series
        if not name.startswith(OURS)
    )
    return dict(sorted(Counter(names).items()))


def end(servers: Sequence[Server]) -> None:
    """Ask their first processes to end, as service managers do; nothing is left."""
    for server in servers:
        os.kill(server.pid, signal.SIGTERM)
    for server in servers:
        wait_until_gone(server.pid)
    assert not list(Path(os.environ["TMPDIR"]).glob("*sarathi*"))


def wait_until_gone(group: int) -> None:
    """Wait for all of a process group, of which some end a little later than the first."""
    deadline = time.monotonic() + 2 * STOP_LIMIT_S
    while left := alive(group):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def alive(group: int) -> list[str]:
    """The processes of a group; not those that only wait to be read."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended just now
            text = file.read_text()
            state, _, its_group = text.rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(text)
    return found
