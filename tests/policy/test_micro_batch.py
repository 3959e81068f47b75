import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.policy.micro_batch import decode_share, evenness


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 16))
def test_shares_take_everyone_within_one_round(ready: int, in_flight: int, stages: int) -> None:
    share = decode_share(ready, ready + in_flight, stages)
    assert share <= ready
    assert share * stages >= ready


def test_equal_micro_batches_leave_nothing_idle() -> None:
    assert evenness([0.01] * 4, 4) == (1.0, 0.0)


def test_one_long_micro_batch_makes_the_others_wait() -> None:
    assert evenness([0.03, 0.01, 0.01, 0.01], 4) == pytest.approx((2.0, 0.5))


def test_empty_places_in_the_pipeline_are_idle() -> None:
    assert evenness([0.01], 4) == (1.0, 0.75)
    assert evenness([], 4) is None
    assert evenness([0.0], 4) is None
