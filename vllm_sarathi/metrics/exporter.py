"""Carries the engine cores' metrics to the server's own /metrics.

The engine core is another process than the API server. It writes its metrics to
a file in a folder that both know; the server reads the folder at each scrape.
"""

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

DIRECTORY_VARIABLE = "SARATHI_METRICS_DIR"
WRITE_INTERVAL_S = 0.5
_CHECK_INTERVAL_S = 5.0
"""How often an engine without work looks whether its file is still there."""

_PREFIX, _LOCK = "vllm-sarathi-server-", "lock"
_is_closed = threading.Event()


@functools.cache
def share_with_engines() -> None:
    """Make the folder and show its metrics in this process's default registry.

    Engine cores inherit the folder's name through the environment. Once a process.
    """
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllm-sarathi"
        parent.mkdir(parents=True, exist_ok=True)
        directory = _make_folder(parent)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        directory = _make_folder(Path(tempfile.gettempdir()))
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    atexit.register(_remove, directory, os.getpid())
    REGISTRY.register(EngineMetrics(directory))


def _make_folder(parent: Path) -> Path:
    """Make a folder that is private to the user, and remove those of servers that were killed.

    A server holds a lock on a file of its folder for as long as it lives. The folder gets its
    name when that is held, so that no other server takes it for one left behind.
    """
    for left in parent.glob(f"{_PREFIX}*"):
        if _is_left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".", dir=parent))
    fcntl.flock(os.open(new / _LOCK, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)
    return new.rename(parent / (_PREFIX + new.name.removeprefix(".")))


def _is_left_behind(directory: Path) -> bool:
    """Whether no server holds the lock; one whose folder was cleaned makes it anew."""
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(directory: Path, owner_pid: int) -> None:
    """Remove the folder, though not from a forked child that inherited the exit handler."""
    if os.getpid() == owner_pid:
        _is_closed.set()
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
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:  # the folder was cleaned just now
                continue
            for family in text_string_to_metric_families(text):
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
        self._path = Path(os.environ.get(DIRECTORY_VARIABLE, "")) / f"{name}.prom"
        self._changed = threading.Event()
        self._changed.set()
        if DIRECTORY_VARIABLE in os.environ:
            threading.Thread(target=self._write, name="vllm-sarathi-metrics", daemon=True).start()

    def touch(self) -> None:
        """Say that a metric has changed."""
        self._changed.set()

    def _write(self) -> None:
        """Write what changed, and the folder again if a cleaner removed it."""
        server_pid, is_failing = os.getppid(), False
        while True:
            has_changed = self._changed.wait(_CHECK_INTERVAL_S)
            if _is_closed.is_set() or os.getppid() != server_pid:
                return  # the server has ended
            if has_changed or not self._path.exists():
                self._changed.clear()
                try:
                    self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    write_to_textfile(str(self._path), self._registry)
                    is_failing = False
                except OSError as error:
                    if not is_failing:
                        logger.warning("metrics stay as they were: %s", error)
                    is_failing = True
            time.sleep(WRITE_INTERVAL_S)
