"""Carries the engine cores' metrics to the server's own /metrics.

The engine core is another process than the API server. It writes its metrics to
a file in a folder that both know; the server reads the folder at each scrape.
"""

import atexit
import functools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric, write_to_textfile
from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.registry import Collector
from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

DIRECTORY_VARIABLE = "VLLM_SARATHI_METRICS_DIR"
WRITE_INTERVAL_S = 0.5


@functools.cache
def share_with_engines() -> None:
    """Make the folder and show its metrics in this process's default registry.

    Engine cores inherit the folder's name through the environment. Once a process.
    """
    directory = tempfile.mkdtemp(prefix="vllm-sarathi-")
    os.environ[DIRECTORY_VARIABLE] = directory
    atexit.register(_remove, directory, os.getpid())
    REGISTRY.register(EngineMetrics(Path(directory)))


def _remove(directory: str, owner_pid: int) -> None:
    """Remove the folder, though not from a forked child that inherited the exit handler."""
    if os.getpid() == owner_pid:
        shutil.rmtree(directory, ignore_errors=True)


class EngineMetrics(Collector):
    """Reads what every engine core wrote last.

    Attributes:
        directory: the folder that ``EngineMetricsWriter`` writes to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def describe(self) -> Iterable[Metric]:
        """Name no metric in advance: the engines decide which there are."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Merge the files: one metric family each, with the samples of all engines."""
        families: dict[str, Metric] = {}
        for path in sorted(self.directory.glob("*.prom")):
            with path.open(encoding="utf-8") as file:
                for family in text_fd_to_metric_families(file):
                    known = families.setdefault(family.name, family)
                    if known is not family:
                        known.samples.extend(family.samples)
        return families.values()


class EngineMetricsWriter:
    """Writes a registry to the shared folder from a thread of its own.

    A thread, since an engine without work makes no step in which its last
    figures could be written.

    Args:
        registry: the engine core's metrics.
        name: the file's name without its ending, distinct for each engine.
    """

    def __init__(self, registry: CollectorRegistry, name: str) -> None:
        self._registry = registry
        self._path = os.path.join(os.environ.get(DIRECTORY_VARIABLE, ""), f"{name}.prom")
        self._changed = threading.Event()
        self._changed.set()
        if DIRECTORY_VARIABLE in os.environ:
            threading.Thread(target=self._write, name="vllm-sarathi-metrics", daemon=True).start()

    def touch(self) -> None:
        """Say that a metric has changed."""
        self._changed.set()

    def _write(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                write_to_textfile(self._path, self._registry)
            except FileNotFoundError:
                return  # the server has ended and removed the folder
            except OSError as error:
                logger.warning("metrics stay as they were: %s", error)
            time.sleep(WRITE_INTERVAL_S)
