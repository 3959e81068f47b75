"""A port on which one engine core serves its own metrics.

For engines that no API server of ours can ask: those on other nodes.
"""

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server
from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve metrics over HTTP from a thread, until the returned call.

    A port that cannot be had is a warning: an engine is worth more than its metrics.
    """
    try:
        server, _ = start_http_server(port, host, registry)
    except (OSError, OverflowError, ValueError) as error:
        logger.warning(
            "metrics_port: cannot listen on %s:%d (%s). This engine's own port serves no metrics; "
            "choose a free port or another metrics_host",
            host,
            port,
            error,
        )
        return lambda: None
    logger.info("metrics of this engine are on http://%s:%d/metrics", host, port)

    def stop() -> None:
        server.shutdown()
        server.server_close()

    # Shutting down waits for the serving thread, in which a garbage collector may call this.
    return lambda: threading.Thread(target=stop).start()
