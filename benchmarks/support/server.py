"""Starts and stops one `vllm serve` on this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

START_LIMIT_S = 600
STOP_LIMIT_S = 30
GPU_MEMORY_SHARE = 0.9
LAST_LINES = 40
CAUSE = re.compile(r"^(?!.* (?:WARNING|INFO) ).*\w(?:Error|Exception): ")

_port_holders: list[socket.socket] = []


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        url: its root, like ``http://127.0.0.1:8000``.
        command: what started it.
        pid: of its first process.
    """

    url: str
    command: tuple[str, ...]
    pid: int

    def scrape(self, prefix: str) -> list[str]:
        """The samples on /metrics whose name starts with a prefix."""
        answer = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status()
        return [line for line in answer.text.splitlines() if line.startswith(prefix)]


@contextmanager
def serve(model: str, flags: Sequence[str]) -> Iterator[Server]:
    """Serve a model with `vllm serve` until the block ends.

    Raises:
        RuntimeError: it ended or did not answer in time; holds the end of its log.
    """
    port = free_port()
    address = ("--host", "127.0.0.1", "--port", str(port))
    with running(("serve", model, *address, *flags)) as (process, log):
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url, log)
        yield Server(url, ("vllm", "serve", Path(model).name, *flags), process.pid)


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A `vllm` command that runs until the block ends, and its log."""
    program = str(Path(sys.executable).with_name("vllm"))
    with tempfile.NamedTemporaryFile("w+", prefix="vllm-serve-", suffix=".log") as log:
        process = subprocess.Popen(
            (program, *arguments), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process, Path(log.name)
        finally:
            stop(process)


def memory_share(num_servers: int) -> tuple[str, ...]:
    """Flags of each of so many servers on one GPU; none for CPUs."""
    if "cpu" in version("vllm"):
        return ()
    return ("--gpu-memory-utilization", f"{GPU_MEMORY_SHARE / num_servers:.2f}")


def free_port() -> int:
    """A port that nothing listens on, and that no other process is given while this one lives."""
    holder = socket.socket()
    # Whoever binds it with this option too, as servers do, can listen beside the holder.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _port_holders.append(holder)
    return int(holder.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    end = end_of(log.read_text(errors="replace"))
    raise RuntimeError(f"the server did not start (exit code {process.returncode}):\n{end}")


def end_of(log: str) -> str:
    """The last lines of a log, and before them the errors that others only refer to."""
    lines = log.splitlines()
    errors = [line for line in lines[:-LAST_LINES] if CAUSE.search(line)]
    return "\n".join([*errors[:LAST_LINES], *lines[-LAST_LINES:]])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and the processes that it started, and only those."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
