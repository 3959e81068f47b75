"""Carries the engine cores' metrics to every place that shows the server's.

Engine cores and API servers are processes of their own, in any number. Each engine core listens
on a socket, and replies with the text of its metrics. The sockets lie in a folder that the first
process of the server makes and hands down in the environment. Whoever shows metrics asks them
all: an API server at each scrape, ``LLM.get_metrics()`` at each call. So the loop of an
engine does nothing for it, and the figures of one that has ended are gone.
"""

import atexit
import fcntl
import functools
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

DIRECTORY_VARIABLE = "SARATHI_METRICS_DIR"
REPLY_LIMIT_S = 1.0
"""How long a scrape waits for engines that are alive and do not reply."""

CHECK_INTERVAL_S = 5.0
"""How often an engine that nobody asks looks whether its socket is still there."""

_PREFIX, _END = "server-", "# EOF\n"


def share_with_engines(*, inherits: bool) -> None:
    """Show the metrics of the server's engine cores where this process shows metrics.

    Args:
        inherits: whether the process that started this one has made the server's folder.
    """
    if not (inherits and DIRECTORY_VARIABLE in os.environ):
        _make_folder(os.getpid())
    _show()


@functools.cache
def _make_folder(pid: int) -> None:
    """Make a folder for what this process starts, and remove those of processes that were killed.

    Whoever makes it holds a shared lock on it for as long as it lives; most cleaners of old files
    respect that too.
    """
    os.environ.pop(DIRECTORY_VARIABLE, None)
    parent = Path(tempfile.gettempdir(), f"vllm-sarathi-{os.geteuid()}")  # sockets have short names
    try:
        _make_private(parent)
        for left in parent.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        new = Path(tempfile.mkdtemp(prefix=".", dir=parent))
        _hold(new)
        directory = new.rename(parent / (_PREFIX + new.name.removeprefix(".")))
    except OSError as error:
        logger.warning(
            "/metrics lacks the vllm_sarathi metrics: cannot make a folder in %s: %s", parent, error
        )
        return
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    atexit.register(_remove_own, directory, pid)


def _make_private(directory: Path) -> None:
    """Make a folder that nobody else can look or write into, unless it is there.

    Raises:
        OSError: it cannot be made, or others can.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise PermissionError(f"{directory} is not private to this user")


def _hold(directory: Path) -> None:
    """Keep others from removing a folder while this process lives."""
    fcntl.flock(os.open(directory, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)


def _remove_if_left(directory: Path) -> None:
    """Remove a folder unless somebody holds it."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(directory)
        finally:
            os.close(descriptor)


def _remove_own(directory: Path, owner_pid: int) -> None:
    """Remove the folder, though not from a forked child that inherited the exit handler."""
    if os.getpid() == owner_pid:
        with suppress(OSError):
            _remove(directory)


def _remove(directory: Path) -> None:
    """Remove a folder of sockets, and none that has anything else."""
    for path in directory.glob("*.sock"):
        path.unlink(missing_ok=True)
    directory.rmdir()


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
                if text.endswith(_END):
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


def reply_to_scrapes(registry: CollectorRegistry, name: str) -> Callable[[], None]:
    """Reply from a thread to whoever asks for an engine core's metrics, until the returned call.

    An engine that takes the name of an earlier one takes its place, for as long as it lives.

    Args:
        registry: the metrics.
        name: of the socket, distinct for each engine of a server.
    """
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory is None:  # on another node than the first process
        return lambda: None
    path = Path(directory, f"{name}.sock")
    try:
        return _Replier(registry, path).close
    except OSError as error:
        logger.warning(
            "/metrics lacks the vllm_sarathi metrics of %s: cannot listen on %s: %s",
            name,
            path,
            error,
        )
        return lambda: None


class _Replier:
    """A thread that replies on a socket with the text of some metrics."""

    def __init__(self, registry: CollectorRegistry, path: Path) -> None:
        self._registry = registry
        self._path = path
        self._is_closed = threading.Event()
        self._listener, self._inode = _listening(path)
        threading.Thread(target=self._run, name="sarathi-metrics", daemon=True).start()

    def close(self) -> None:
        """Reply to nobody any more; the thread ends when it next looks."""
        self._is_closed.set()
        self._leave()

    def _leave(self) -> None:
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # no later engine's
                self._path.unlink()
            self._listener.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._reply()
            except TimeoutError:
                if not self._is_closed.is_set():
                    self._come_back()
            except Exception as error:  # an engine is worth more than a scrape
                if not self._is_closed.is_set():
                    logger.warning(
                        "cannot reply to a scrape of the vllm_sarathi metrics, trying again: %s",
                        error,
                    )
                    time.sleep(REPLY_LIMIT_S)
        self._leave()  # again: it may have come back meanwhile
        self._listener.close()

    def _reply(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            text = generate_latest(self._registry) + _END.encode()
            with suppress(OSError):  # whoever asked is gone
                connection.settimeout(REPLY_LIMIT_S)
                connection.sendall(text)

    def _come_back(self) -> None:
        """Make the socket again, and its folder, if a cleaner of old files removed them."""
        if self._path.exists():
            return
        with suppress(OSError):
            if not self._path.parent.exists():
                _make_private(self._path.parent.parent)
                _make_private(self._path.parent)
                _hold(self._path.parent)
            gone, (self._listener, self._inode) = self._listener, _listening(self._path)
            gone.close()


def _listening(path: Path) -> tuple[socket.socket, int]:
    """A socket at a path, in place of any that was there, and the inode of that path."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(CHECK_INTERVAL_S)
        return listener, path.stat().st_ino
    except OSError:
        listener.close()
        raise
