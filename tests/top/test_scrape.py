import random

import pytest

from tests.support.metrics_server import recorded, shown
from vllm_sarathi.top.names import Sarathi, Vllm
from vllm_sarathi.top.scrape import address_of, parse, scrape

TWO_ENGINES = """\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.1"} 1
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf"} 2
vllm:inter_token_latency_seconds_bucket{engine="1",le="0.1"} 10
vllm:inter_token_latency_seconds_bucket{engine="1",le="+Inf"} 20
"""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8000", "http://localhost:8000/metrics"),
        ("localhost", "http://localhost/metrics"),
        ("http://10.0.0.1:8000", "http://10.0.0.1:8000/metrics"),
        ("http://h:8000/", "http://h:8000/metrics"),
        ("h:8000/metrics", "http://h:8000/metrics"),
        ("h:8000/metrics/", "http://h:8000/metrics"),
        ("https://gateway.example/llama", "https://gateway.example/llama/metrics"),
        ("https://h/metrics?token=a", "https://h/metrics?token=a"),
        ("[::1]:8000", "http://[::1]:8000/metrics"),
        ("https://[2001:db8::1]:8443/metrics", "https://[2001:db8::1]:8443/metrics"),
    ],
)
def test_a_server_is_named_by_url_or_host_and_port(text: str, address: str) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":8000", "h:port", "h:99999", "h:0", "::1:8000", "[::1", "ftp://h", "http://"),
        *("a b:8000", "user:secret@h:8000", "h:8000/\n", "file:///etc/hosts"),
    ],
)
def test_what_names_no_server_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be HOST:PORT, http://.*\[::1\]:8000") as refused:
        address_of(text)
    assert repr(text) in str(refused.value)


def test_counts_and_histograms_of_several_engines_are_summed() -> None:
    scrape = parse(TWO_ENGINES, 0)
    assert scrape.total(Vllm.RUNNING) == 7
    assert scrape.highest(Vllm.RUNNING) == 4
    assert scrape.buckets(Vllm.TBT) == {0.1: 11, float("inf"): 22}


def test_a_server_cannot_steer_the_terminal() -> None:
    text = 'vllm:num_requests_running{model_name="\x1b[2Jm"} 1.0\n'
    with shown(text) as server:
        found = scrape(address_of(server.name))
    (sample,) = found.samples["vllm:num_requests_running"]
    assert sample.labels["model_name"] == "\N{REPLACEMENT CHARACTER}[2Jm"


def test_what_a_server_lacks_is_none() -> None:
    scrape = parse(TWO_ENGINES, 0)
    assert scrape.total(Vllm.WAITING) is None
    assert scrape.highest(Sarathi.TBT_OBJECTIVE) is None
    assert scrape.total(Vllm.RUNNING, engine="7") is None
    assert scrape.buckets(Vllm.TTFT) == {}


@pytest.mark.parametrize("server", ["sarathi", "stock"])
def test_a_server_that_ran_through_is_told_from_one_that_was_started_again(server: str) -> None:
    first, last = parse(recorded(f"{server}_1"), 0), parse(recorded(f"{server}_2"), 25)
    assert first.is_before(last)
    assert first.is_before(first)
    assert not last.is_before(first)


@pytest.mark.parametrize(
    "text", ["", "<html>It works!</html>", "python_info 1.0\n", "# HELP vllm:x y", "\0\0"]
)
def test_a_text_without_vllms_metrics_is_named_so(text: str) -> None:
    with pytest.raises(ValueError, match="no metrics of vLLM"):
        parse(text, 0)


@pytest.mark.parametrize(
    "line",
    [
        "vllm:num_requests_running{",
        "vllm:num_requests_running many",
        'vllm:inter_token_latency_seconds_bucket{engine="0"} 1',
        'vllm:inter_token_latency_seconds_bucket{le="some"} 1',
    ],
)
def test_a_line_that_cannot_be_read_is_named_so(line: str) -> None:
    with pytest.raises(ValueError, match="text format"):
        parse(line, 0)


def test_broken_texts_are_refused_and_never_fail_otherwise() -> None:
    chance, whole = random.Random(0), recorded("stock_1")
    for _ in range(50):
        text = list(whole[: chance.randrange(len(whole))])
        for _ in range(20):
            text[chance.randrange(len(text))] = chance.choice('{}",= \n\\+-0a\0é')
        try:
            parse("".join(text), 0)
        except ValueError as error:
            assert "metrics" in str(error)  # noqa: PT017
