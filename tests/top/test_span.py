from collections.abc import Mapping

import pytest

from vllm_sarathi.top.names import Sarathi, Vllm
from vllm_sarathi.top.scrape import Scrape, parse
from vllm_sarathi.top.span import Span, ratio


def histogram(name: str, counts: Mapping[str, float], at_s: float) -> Scrape:
    """A scrape of one histogram: cumulated counts by bound."""
    return parse("\n".join(f'{name}_bucket{{le="{le}"}} {n}' for le, n in counts.items()), at_s)


def quantiles(counts: Mapping[str, float], *shares: float, name: str = Vllm.TBT) -> list[float]:
    """Quantiles of what came after a scrape with 5 observations in every bucket."""
    first = histogram(name, {le: 5 * (i + 1) for i, le in enumerate(counts)}, 0)
    last = histogram(name, {le: 5 * (i + 1) + n for i, (le, n) in enumerate(counts.items())}, 1)
    return Span(first, last).quantiles(name, shares)


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    counts = {"0.1": 10, "0.2": 20, "0.5": 20, "+Inf": 20}
    assert quantiles(counts, 0.25, 0.5, 0.75, 1) == pytest.approx([0.05, 0.1, 0.15, 0.2])


def test_empty_buckets_before_a_quantile_do_not_move_it() -> None:
    assert quantiles({"1": 0, "2": 0, "4": 8, "+Inf": 8}, 0.5) == [3]


def test_a_quantile_above_the_last_bound_is_that_bound() -> None:
    assert quantiles({"1": 1, "2": 1, "+Inf": 10}, 0.99) == [2]


def test_a_quantile_below_a_first_bound_that_is_negative_is_that_bound() -> None:
    counts = {"-5": 9, "0": 9, "2": 10, "+Inf": 10}
    assert quantiles(counts, 0.5, name=Sarathi.SLACK) == [-5]


def test_a_quantile_between_negative_bounds_is_interpolated() -> None:
    assert quantiles({"-5": 0, "-1": 4, "+Inf": 4}, 0.5, name=Sarathi.SLACK) == [-3]


@pytest.mark.parametrize("counts", [{"1": 0, "+Inf": 0}, {"+Inf": 3}, {}])
def test_nothing_observed_or_no_bounds_have_no_quantiles(counts: dict[str, float]) -> None:
    if counts:
        assert quantiles(counts, 0.5) == []
    span = Span(parse("vllm:num_requests_running 1", 0), parse("vllm:num_requests_running 1", 1))
    assert span.quantiles(Vllm.TBT, [0.5]) == []


def test_a_series_that_came_later_began_at_0() -> None:
    first = parse("vllm:num_requests_running 1", 10)
    last = parse('vllm:request_success_total{finished_reason="stop"} 8', 14)
    assert Span(first, last).increase(Vllm.FINISHED) == 8
    assert Span(first, last).rate(Vllm.FINISHED) == 2


def test_a_metric_that_is_not_there_has_no_rate() -> None:
    first, last = (parse("vllm:num_requests_running 1", at_s) for at_s in (0, 1))
    assert Span(first, last).rate(Vllm.FINISHED) is None
    assert Span(first, last).mean(Sarathi.DECODE_TOKENS) is None


def test_one_scrape_alone_tells_nothing_that_grows() -> None:
    one = parse('vllm:prompt_tokens_total 5\nvllm:inter_token_latency_seconds_bucket{le="1"} 5', 0)
    assert Span(one, one).rate(Vllm.PROMPT_TOKENS) is None
    assert Span(one, one).quantiles(Vllm.TBT, [0.5]) == []


@pytest.mark.parametrize(("part", "whole"), [(None, 1), (1, None), (0, 0)])
def test_a_share_of_nothing_is_unknown(part: float | None, whole: float | None) -> None:
    assert ratio(part, whole) is None
