"""Carries the engine cores' metrics to every place that shows the server's.

Engine cores and API servers are processes of their own, in any number. Each engine core listens
on a socket, and replies with the text of its metrics. The sockets lie in a folder that the first
process of the server makes and hands down in the environment. Whoever shows metrics asks them
all: an API server at each scrape, ``LLM.get_metrics()`` at each call. So the loop of an
engine does nothing for it, and the figures of one that has ended are gone.
"""

import functools
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from vllm_sarathi.metrics.replier import END, REPLY_LIMIT_S
from vllm_sarathi.metrics.server_folder import DIRECTORY_VARIABLE, make_folder


def share_with_engines(*, inherits: bool) -> None:
    """Show the metrics of the server's engine cores where this process shows metrics.

    Args:
        inherits: whether the process that started this one has made the server's folder.
    """
    if not (inherits and DIRECTORY_VARIABLE in os.environ):
        make_folder(os.getpid())
    _show()


@functools.cache
def _show() -> None:
    """Add the engines' metrics to both sources of /metrics.

    They are the default registry and, where there are several API servers, a registry that
    prometheus_client makes anew for each scrape.
    """
    REGISTRY.register(EngineMetrics())
    MultiProcessCollector.collect = _with_engines(  # type: ignore[method-assign]  # a wrapper
        MultiProcessCollector.collect
    )


def _with_engines(collect: Any) -> Any:
    @functools.wraps(collect)
    def wrapper(self: Any) -> Iterable[Metric]:
        return [*collect(self), *EngineMetrics().collect()]

    return wrapper


class EngineMetrics(Collector):
    """What all engine cores of the server say."""

    def describe(self) -> Iterable[Metric]:
        """Name no metric in advance: the engines decide which there are."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Merge the replies: one metric family each, with the samples of all engines."""
        families: dict[str, Metric] = {}
        directory = os.environ.get(DIRECTORY_VARIABLE)
        for text in _replies(Path(directory)) if directory else ():
            for family in text_string_to_metric_families(text):
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        return families.values()


def _replies(directory: Path) -> Iterator[str]:
    """The text of each engine that replies in time; all are asked before any is waited for."""
    deadline_s = time.monotonic() + REPLY_LIMIT_S
    with ExitStack() as stack:
        asked = []
        for path in sorted(directory.glob("*.sock")):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(REPLY_LIMIT_S)
            with suppress(OSError):  # it has ended
                connection.connect(str(path))
                asked.append(connection)
        for connection in asked:
            with suppress(OSError):
                text = _read(connection, deadline_s)
                if text.endswith(END):
                    yield text


def _read(connection: socket.socket, deadline_s: float) -> str:
    """All that comes until the other side closes.

    Raises:
        TimeoutError: the time is over.
    """
    parts = list[bytes]()
    while True:
        connection.settimeout(max(deadline_s - time.monotonic(), 0.01))
        part = connection.recv(1 << 16)
        if not part:
            return b"".join(parts).decode(errors="replace")
        parts.append(part)
