"""A real Prometheus that scrapes a server, configured as in the examples."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from support.model import CACHE
from support.server import free_port, stop

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitoring"
SCRAPE_INTERVAL_S = 1
_START_LIMIT_S = 30


def program(name: str) -> Path | None:
    """``prometheus`` or ``promtool``: on the path, or as ``.ci/prometheus`` unpacked it."""
    folders = os.pathsep.join((os.environ.get("PATH", ""), str(CACHE / "vllm-sarathi/prometheus")))
    found = shutil.which(name, path=folders)
    return Path(found) if found else None


def filled_in(query: str, window_s: int = 10) -> str:
    """A query of the dashboard, over all engines and with rates over such a time."""
    for name in ("job", "model_name", "instance", "engine"):
        query = query.replace(f'"${name}"', '".+"')
    return query.replace("$__rate_interval", f"{window_s}s")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus.

    Attributes:
        url: its root.
    """

    url: str

    def series(self, query: str, begin_s: float, end_s: float) -> list[dict[str, Any]]:
        """What a query returns over a time, once a second."""
        span = {"start": begin_s, "end": end_s, "step": SCRAPE_INTERVAL_S}
        found = self.ask("query_range", query=query, **span)
        return list(found["result"])

    def ask(self, path: str, **given: Any) -> dict[str, Any]:
        """An answer of its HTTP API.

        Raises:
            RuntimeError: it refuses; holds its reason.
        """
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=given, timeout=30)
        if answer.is_error:
            raise RuntimeError(f"{given}: {answer.text}")
        return dict(answer.json()["data"])


@contextmanager
def scraping(url: str) -> Iterator[Prometheus]:
    """Scrape a server once a second until the block ends.

    Raises:
        RuntimeError: there is no Prometheus, or it did not start; holds its log.
    """
    found = program("prometheus")
    if found is None:
        raise RuntimeError("prometheus is not installed: run .ci/prometheus")
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        folder = Path(name)
        text = (EXAMPLES / "prometheus.yml").read_text()
        text = text.replace("127.0.0.1:8000", httpx.URL(url).netloc.decode())
        (folder / "prometheus.yml").write_text(text.replace("15s", f"{SCRAPE_INTERVAL_S}s"))
        shutil.copy(EXAMPLES / "alerts.yml", folder)
        own = Prometheus(f"http://127.0.0.1:{free_port()}")
        command = (
            found,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={own.url.removeprefix('http://')}",
            "--log.level=warn",
        )
        with (folder / "log").open("w+") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                _wait_until_ready(process, own.url, folder / "log")
                yield own
            finally:
                stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/-/ready", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"prometheus did not start:\n{log.read_text()}")
