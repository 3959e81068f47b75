import socket
import time

import pytest
from support.server import free_port

from tests.support.metrics_server import recorded, shown
from vllm_sarathi.top import scrape, server
from vllm_sarathi.top.names import Vllm
from vllm_sarathi.top.server import Server
from vllm_sarathi.top.span import Span


def polled(watched: Server) -> Span | str:
    """What one more scrape leaves: figures, or why there are none."""
    watched.poll()
    return watched.state.span or watched.state.problem


def grown(watched: Server, name: str) -> float | None:
    span = polled(watched)
    assert isinstance(span, Span), span
    return span.increase(name)


def tokens(count: int) -> bytes:
    return f"vllm:generation_tokens_total {count}\n".encode()


def test_counters_are_compared_over_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown() as shows:
        watched = Server(shows.name)
        for count, increase in ((100, None), (110, 10), (130, 30)):
            shows.body = tokens(count)
            assert grown(watched, Vllm.OUTPUT_TOKENS) == increase
        monkeypatch.setattr(server, "WINDOW_S", 0.0)
        shows.body = tokens(135)
        assert grown(watched, Vllm.OUTPUT_TOKENS) == 5


def test_a_server_that_was_started_again_begins_a_new_window() -> None:
    with shown() as shows:
        watched = Server(shows.name)
        for count, increase in ((100, None), (110, 10), (3, None), (7, 4)):
            shows.body = tokens(count)
            assert grown(watched, Vllm.OUTPUT_TOKENS) == increase


def test_a_server_that_vanishes_is_named_so_and_returns_by_itself() -> None:
    port = free_port()
    with shown(recorded("stock_1"), port) as shows:
        watched = Server(shows.name)
        assert isinstance(polled(watched), Span)
    assert polled(watched) == "Connection refused"
    since_s = watched.state.since_s
    assert polled(watched) == "Connection refused"
    assert watched.state.since_s == since_s
    with shown(recorded("stock_2"), port):
        assert grown(watched, Vllm.OUTPUT_TOKENS) == 873


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>It works!</html>", "no metrics of vLLM there"),
        (b"\xff\xfe\x00", "no metrics of vLLM there"),
        (b"vllm:num_requests_running{", "metrics that are not in Prometheus's text format"),
        (None, "Remote end closed connection without response"),
    ],
)
def test_a_server_that_answers_something_else_is_told(body: bytes | None, problem: str) -> None:
    with shown() as shows:
        shows.body = body
        assert polled(Server(shows.name)) == problem


def test_a_refusal_is_told() -> None:
    with shown() as shows:
        assert polled(Server(f"{shows.name}/v1")) == "HTTP 404 Not Found"


def test_tls_of_a_server_without_it_is_told() -> None:
    with shown() as shows:
        assert "SSL" in str(polled(Server(f"https://{shows.name}")))


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert polled(Server(f"127.0.0.1:{silent.getsockname()[1]}")) == "timed out"


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_MAX_BYTES", 1000)
    with shown(recorded("stock_1")) as shows:
        assert str(polled(Server(shows.name))).startswith("no end of the answer")


def test_a_server_is_followed_without_anybody_asking() -> None:
    with shown(recorded("stock_1")) as shows:
        watched = Server(shows.name)
        assert watched.state.span is None
        thread = watched.follow(0.01)
        deadline_s = time.monotonic() + 60
        while not (watched.state.span and watched.state.span.duration_s):
            assert time.monotonic() < deadline_s
        assert thread.daemon


def test_so_many_scrapes_and_no_more_can_be_asked_for() -> None:
    with shown(recorded("stock_1")) as shows:
        watched = Server(shows.name)
        watched.follow(0.01, num_scrapes=2).join()
        assert watched.state.span
        assert watched.state.span.duration_s > 0
