"""Tells an engine core's metrics to whoever asks on a socket."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from vllm.logger import init_logger

from vllm_sarathi.metrics.server_folder import DIRECTORY_VARIABLE, hold, make_private

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

REPLY_LIMIT_S = 1.0
"""How long a scrape waits for engines that are alive and do not reply."""

CHECK_INTERVAL_S = 5.0
"""How often an engine that nobody asks looks whether its socket is still there."""

END = "# EOF\n"
"""Ends a reply, so that one that was cut off is told from it."""


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
            text = generate_latest(self._registry) + END.encode()
            with suppress(OSError):  # whoever asked is gone
                connection.settimeout(REPLY_LIMIT_S)
                connection.sendall(text)

    def _come_back(self) -> None:
        """Make the socket again, and its folder, if a cleaner of old files removed them."""
        if self._path.exists():
            return
        with suppress(OSError):
            if not self._path.parent.exists():
                make_private(self._path.parent.parent)
                make_private(self._path.parent)
                hold(self._path.parent)
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
