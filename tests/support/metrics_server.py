"""A server of /metrics on this machine that shows what a test wants."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

RECORDED = Path(__file__).parents[1] / "top" / "recorded"
"""What real servers showed, 25 seconds apart: vLLM 0.32.0, SmolLM2-135M, the lines of HELP cut."""


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.prom").read_text()


class MetricsServer(ThreadingHTTPServer):
    """Answers each GET of /metrics with a body; closes without an answer where there is none."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.body: bytes | None = b""

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer

    def do_GET(self) -> None:
        if self.server.body is None:
            return
        if self.path != "/metrics":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def shown(text: str = "", port: int = 0) -> Iterator[MetricsServer]:
    """Show a text until the block ends."""
    with MetricsServer(port) as server:
        server.body = text.encode()
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
