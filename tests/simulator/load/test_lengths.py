import numpy as np
import pytest

from vllm_sarathi.simulator import (
    LENGTHS,
    Agentic,
    LongAmongShort,
    Zipf,
)

RANDOM = np.random.default_rng


@pytest.mark.parametrize(
    ("name", "prompt", "output"),
    [
        ("sharegpt", (1730, 5696), (415, 834)),
        ("arxiv", (7059, 12985), (208, 371)),
        ("conversation", (1020, 2735), (129, 424)),
        ("code", (1469, 5194), (13, 55)),
    ],
)
def test_lengths_have_the_published_quantiles(
    name: str, prompt: tuple[int, int], output: tuple[int, int]
) -> None:
    drawn = LENGTHS[name].draw(20_000, RANDOM(0))
    assert np.quantile(drawn.num_prompt, (0.5, 0.9)) == pytest.approx(prompt, rel=0.06)
    assert np.quantile(drawn.num_output, (0.5, 0.9)) == pytest.approx(output, rel=0.06)


def test_zipf_keeps_its_ratio_and_range() -> None:
    drawn = Zipf(pd_ratio=10).draw(5000, RANDOM(0))
    total = drawn.num_prompt + drawn.num_output
    assert total.min() >= 1024
    assert total.max() <= 4096
    assert drawn.num_prompt.sum() / drawn.num_output.sum() == pytest.approx(10, rel=0.01)


def test_one_prompt_in_a_hundred_is_long() -> None:
    drawn = LongAmongShort().draw(300, RANDOM(0))
    assert (drawn.num_prompt == 100_000).sum() == 3


def test_agentic_turns_repeat_most_of_their_context() -> None:
    drawn = Agentic().draw(2000, RANDOM(0))
    assert drawn.prefix is not None
    assert len(np.unique(drawn.prefix)) / 2000 == pytest.approx(0.05, abs=0.02)
    assert drawn.num_prompt.min() == 50_000
