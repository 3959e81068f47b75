"""Batches sized for throughput alone."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_token_budget import Known, known, view
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.step import BatchLimit, BatchSize
from vllm_sarathi.policy.step_time import BATCH_SIZES, StepTimeModel, StepWork
from vllm_sarathi.policy.throughput_budget import SPREAD, ThroughputTokenBudget

EVERYTHING = BatchSize(2048, BatchLimit.MAXIMUM)


def test_without_decodes_a_batch_is_as_large_as_can_be() -> None:
    assert ThroughputTokenBudget(known())(view(0, 6000)) == EVERYTHING


def test_before_steps_were_learned_a_batch_is_as_large_as_can_be() -> None:
    assert ThroughputTokenBudget(StepTimeModel())(view(9, 6000)) == EVERYTHING


def test_prefill_that_rides_on_decodes_ends_with_a_tile() -> None:
    assert ThroughputTokenBudget(known())(view(20, 600)) == BatchSize(128, BatchLimit.TILE)


def test_much_prefill_takes_large_batches_though_decodes_run() -> None:
    assert ThroughputTokenBudget(known())(view(20, 8000)).num_tokens > 8000 / SPREAD
    assert ThroughputTokenBudget(known())(view(20, 100_000)) == EVERYTHING


class Roofline(Known):
    """Weights take as long to read as 200 tokens take to compute."""

    def predict(self, work: StepWork) -> float:
        return max(0.010, 0.00005 * work.num_tokens)


def test_prefill_fills_the_time_that_decodes_take_anyway() -> None:
    sized = ThroughputTokenBudget(Roofline(100, 8192))(view(20, 600))
    assert sized == BatchSize(192, BatchLimit.TILE)


@given(st.integers(1, 500), st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_no_other_batch_that_does_its_share_of_prefill_adds_much_less_time_for_each_token(
    decodes: int, prompts: list[int]
) -> None:
    model, seen = Roofline(100, 8192), view(decodes, *prompts)
    most = min(decodes + sum(prompts), 2048)
    least = min(decodes + sum(prompts) / SPREAD, most)
    chosen = min(ThroughputTokenBudget(model)(seen).num_tokens, most)
    assert chosen >= least

    def cost(num_tokens: int) -> float:
        alone_s = model.predict(StepWork(decodes))
        return (model.predict(StepWork(num_tokens)) - alone_s) / (num_tokens - decodes)

    others = (n for n in (*BATCH_SIZES, most) if max(least, decodes + 1) <= n <= most)
    assert cost(chosen) <= 1.005 * min(map(cost, others))


class Linear(Known):
    """A token takes as long in any batch, as on a CPU, and so does a token of context."""

    def predict(self, work: StepWork) -> float:
        context_s = 1e-7 * work.chunk_context + 1e-6 * work.decode_context
        return 0.040 + 0.002 * work.num_tokens + context_s


class Tiles(Known):
    """Half the first tile is free beside the weights; each tile costs less when full."""

    def predict(self, work: StepWork) -> float:
        return max(0.010, 0.006 * ceil(work.num_tokens / 128)) + 1e-9 * work.chunk_context


def chunks(model: StepTimeModel, decodes: int, prompt: int) -> list[int]:
    """How a prompt is cut that comes alone."""
    builder, cut = StallFree(ThroughputTokenBudget(model)), list[int]()
    while (done := sum(cut)) < prompt:
        seen = view(decodes, prompt - done, context=500 * decodes, computed=done)
        cut.append(builder.plan(seen).num_prefill_tokens)
    return cut


@pytest.mark.parametrize("decodes", [1, 8, 32, 128])
def test_a_prompt_is_not_cut_where_that_saves_nothing(decodes: int) -> None:
    assert chunks(Linear(100, 8192), decodes, 544) == [544]


@pytest.mark.parametrize("prompt", [600, 1500])
def test_a_prompt_is_cut_where_tiles_end_while_a_larger_batch_would_cost_more(prompt: int) -> None:
    *cut, last = chunks(Tiles(100, 8192), 20, prompt)
    assert cut
    assert {(20 + chunk) % 128 for chunk in cut} == {0}
    assert last <= 128 * SPREAD
