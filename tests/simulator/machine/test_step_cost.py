import pytest

from vllm_sarathi.simulator import StepCost, StepWork, deployment


def test_a_cliff_costs_a_whole_tile() -> None:
    cost = deployment("a100-llama-3-8b").stages[0]
    assert cost.tokens_s(129) / cost.tokens_s(128) > 1.3
    assert cost.tokens_s(257) / cost.tokens_s(256) > 1.3


def test_time_is_the_table_plus_attention() -> None:
    cost = StepCost(((0, 1.0), (10, 1.0), (20, 2.0)), 0.5, 0.25, 0.125)
    assert cost.step_s(StepWork(15, 4.0, 8), num_sampled=2) == pytest.approx(1.5 + 2 + 2 + 0.25)


def test_beyond_the_table_time_goes_with_tokens() -> None:
    cost = StepCost(((0, 1.0), (10, 2.0)), 0, 0)
    assert cost.tokens_s(30) == pytest.approx(6.0)


@pytest.mark.parametrize("points", [((0, 1.0),), ((5, 1.0), (5, 2.0)), ((0, -1.0), (5, 1.0))])
def test_impossible_tables_are_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="token_points"):
        StepCost(points, 0, 0)


def test_negative_costs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decode_context_s=-1"):
        StepCost(((0, 1.0), (1, 1.0)), 0, -1)


def test_layers_with_a_window_cost_no_more_than_the_window() -> None:
    cost = StepCost(((0, 0.0), (10, 0.0)), 1.0, 1.0, windowed=((100, 0.5, 0.25),))
    below = cost.step_s(StepWork(2, 150, 0), 1) + cost.step_s(StepWork(2, 0, 150), 2)
    assert below == pytest.approx(150 * 1.5 + 150 * 1.25)
    beyond = cost.step_s(StepWork(2, 1000, 0), 1) + cost.step_s(StepWork(2, 0, 1000), 2)
    assert beyond == pytest.approx(1000 + 200 * 0.5 + 1000 + 200 * 0.25)
