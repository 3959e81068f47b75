"""Batches sized for throughput alone."""

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_token_budget import Known, known, view
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
def test_no_other_batch_that_does_its_share_of_prefill_adds_less_time_for_each_token(
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
    assert cost(chosen) == min(map(cost, others))
