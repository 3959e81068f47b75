"""Engines on a node without an API server; here both nodes are this machine."""

import asyncio
import json

import httpx
import pytest
from support.server import free_port, running, serve

from tests.features import engines, shown
from tests.features.served import BASE, completions


@pytest.mark.features
@pytest.mark.timeout(3 * engines.LIMIT_S)
def test_a_headless_engine_is_on_its_own_port_and_not_on_the_api_server(
    folders: dict[str, str], server_environment: pytest.MonkeyPatch
) -> None:
    model, own_port = folders["llama"], free_port()
    port = own_port - 1  # to which the engine adds its rank
    address = ("--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(free_port()))
    flags = (
        *(*BASE, "--scheduler", "sarathi", *address),
        *("--data-parallel-size", "2", "--data-parallel-size-local", "1"),
    )
    settings = ("--sarathi-config", json.dumps({"metrics_port": port}))
    headless = ("serve", model, *flags, *settings, "--headless", "--data-parallel-start-rank", "1")
    with (
        running(headless) as (process, _),
        serve(model, (*flags, "--api-server-count", "1")) as server,
    ):
        asyncio.run(completions(server, model))
        assert shown.check(shown.scrape(server.url), model) == {"0"}
        assert shown.check(shown.scrape(f"http://127.0.0.1:{own_port}"), model) == {"1"}
        with pytest.raises(httpx.ConnectError):
            shown.scrape(f"http://127.0.0.1:{port}")
        process.terminate()
        shown.end([server])
        shown.wait_until_gone(process.pid)
