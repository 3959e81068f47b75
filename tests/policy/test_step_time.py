"""The step-time model against made-up machines whose costs are known."""

from collections.abc import Callable
from math import ceil, inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.policy.step_time import ErrorQuantile, StepTimeModel, StepWork, non_negative_fit

Machine = Callable[[StepWork], float]


def machine(work: StepWork) -> float:
    """Tiles of 128 tokens, attention over chunks and over decode contexts."""
    tiles = ceil(work.num_tokens / 128)
    return 0.008 + 0.006 * tiles + 3e-9 * work.chunk_context + 2e-8 * work.decode_context


def batches(count: int, seed: int = 0) -> list[StepWork]:
    """Decode-only steps and mixed ones, contexts from short to long."""
    random = np.random.default_rng(seed)
    works = []
    for i in range(count):
        decodes = int(random.integers(1, 80))
        total = decodes if i % 3 == 0 else int(random.choice([128, 192, 256, 384, 512]))
        chunk = max(total - decodes, 0)
        context = float(chunk * random.integers(0, 8000))
        works.append(StepWork(total, context, decodes * int(random.integers(500, 3000))))
    return works


def taught(count: int = 600, noise: float = 0.02, truth: Machine = machine) -> StepTimeModel:
    model, random = StepTimeModel(), np.random.default_rng(1)
    for work in batches(count):
        model.observe(work, truth(work) * (1 + noise * random.standard_normal()))
    return model


def errors(model: StepTimeModel, truth: Machine = machine) -> list[float]:
    return [abs(model.predict(work) / truth(work) - 1) for work in batches(300, seed=9)]


def test_after_two_hundred_steps_nine_of_ten_predictions_are_within_a_tenth() -> None:
    assert np.percentile(errors(taught(200)), 90) < 0.10


def test_a_tile_cliff_is_learned_where_it_is_met() -> None:
    model = taught()
    below, above = StepWork(128), StepWork(192)
    assert model.predict(above) / model.predict(below) > 1.2


def test_a_cliff_right_behind_the_ridge_is_not_taken_for_a_slope() -> None:
    model = StepTimeModel()
    for i in range(40):
        model.observe(StepWork(num_tokens := 32 + 6 * i), 0.010 + 4e-5 * num_tokens)
    model.observe(StepWork(264), 1.4 * (0.010 + 4e-5 * 264))
    assert model.predict(StepWork(512)) < 1.4 * (0.010 + 4e-5 * 512)


def test_a_batch_between_decodes_alone_and_large_chunks_is_predicted_without_having_run() -> None:
    def roofline(work: StepWork) -> float:
        return 20e-6 * max(work.num_tokens, 250)

    model = StepTimeModel()
    for i in range(200):
        work = StepWork(40 if i % 2 else 1500 + 4 * i)
        model.observe(work, roofline(work))
    assert model.predict(StepWork(512)) == pytest.approx(roofline(StepWork(512)), rel=0.10)


def tiled(work: StepWork) -> float:
    """Weights are read for all tiles at once, so that the first tile costs most."""
    return 0.014 + 0.007 * ceil(work.num_tokens / 256) + 5e-8 * work.decode_context


def taught_one_cliff() -> StepTimeModel:
    """A model that met the cliff behind the first tile, and no larger batch."""
    model = StepTimeModel()
    for i in range(200):
        work = StepWork(264 + i % 60 if i % 4 == 0 else 196 + i % 60, 0.0, 100_000)
        model.observe(work, tiled(work))
    return model


def test_a_batch_that_never_ran_is_not_taken_to_last_longer_than_its_parts() -> None:
    model = taught_one_cliff()
    whole, half = StepWork(512, 0.0, 100_000), StepWork(256)
    assert not model.has_seen(512)
    parts_s = model.predict(half._replace(decode_context=100_000)) + model.predict(half)
    assert model.predict(whole) <= parts_s * (1 + 1e-9)
    assert model.predict(whole) == pytest.approx(tiled(whole), rel=0.35)


def test_a_first_step_shorter_than_predicted_does_not_lengthen_the_prediction() -> None:
    model, whole = taught_one_cliff(), StepWork(512, 0.0, 100_000)
    predicted_s = model.predict(whole)
    assert tiled(whole) < predicted_s
    model.observe(whole, tiled(whole))
    assert model.predict(whole) <= predicted_s * (1 + 1e-9)


def test_a_pause_in_the_first_step_of_a_size_does_not_lengthen_its_prediction() -> None:
    model, whole = taught_one_cliff(), StepWork(512, 0.0, 100_000)
    predicted_s = model.predict(whole)
    model.observe(whole, 1.0)
    assert model.predict(whole) == pytest.approx(predicted_s)


def test_a_size_whose_first_step_was_an_outlier_counts_as_seen() -> None:
    model = taught()
    model.observe(StepWork(4096), 100.0)
    assert model.largest_seen == 4096


def test_a_machine_that_changes_is_followed() -> None:
    model = taught()
    for work in batches(400, seed=3):
        model.observe(work, 3 * machine(work))
    assert np.percentile(errors(model, lambda work: 3 * machine(work)), 90) < 0.15


def test_one_step_that_takes_a_hundred_times_as_long_changes_nothing() -> None:
    model = taught()
    before = model.predict(StepWork(256, 0.0, 1000))
    model.observe(StepWork(256, 0.0, 1000), 100 * before)
    assert model.predict(StepWork(256, 0.0, 1000)) == before


@pytest.mark.parametrize("duration_s", [0.0, -1.0, nan, inf])
def test_a_clock_that_stands_still_or_jumps_teaches_nothing(duration_s: float) -> None:
    model = taught(50)
    before = model.predict(StepWork(100))
    assert model.observe(StepWork(100), duration_s) is None
    assert model.predict(StepWork(100)) == before


def test_a_prompt_that_fills_the_first_batches_is_not_taken_for_what_every_step_costs() -> None:
    model = StepTimeModel()
    for i in range(6):
        work = StepWork(8192, 8192 * 8192 * (i + 0.5))
        model.observe(work, machine(work))
        assert model.predict(StepWork(1)) < 2 * machine(StepWork(1))


def test_contexts_count_in_a_batch_smaller_than_any_that_ran() -> None:
    model = StepTimeModel()
    for i in range(100):
        work = StepWork(256 + 64 * (i % 5), 0.0, 20_000 * (i % 7))
        model.observe(work, machine(work))
    added_s = model.predict(StepWork(8, 0.0, 200_000)) - model.predict(StepWork(8))
    assert added_s == pytest.approx(200_000 * 2e-8, rel=0.2)


def test_before_any_step_nothing_is_predicted() -> None:
    model = StepTimeModel()
    assert model.predict(StepWork(100)) == 0
    assert model.observe(StepWork(100), 0.05) is None
    assert model.predict(StepWork(100)) > 0


def test_the_safety_factor_covers_the_noise_and_little_more() -> None:
    assert 1.02 < taught(3000, noise=0.02).safety.value < 1.15


def test_an_error_quantile_finds_the_quantile() -> None:
    tracked, random = ErrorQuantile(0.9, rate=0.002), np.random.default_rng(2)
    for ratio in 1 + 0.1 * random.standard_normal(20_000):
        tracked.observe(float(ratio))
    assert tracked.value == pytest.approx(1.128, abs=0.03)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9000), st.floats(0, 1e9), st.integers(0, 10**7), st.floats(1e-9, 1e6)
        ),
        max_size=60,
    )
)
def test_whatever_is_seen_predictions_stay_finite_and_not_negative(
    steps: list[tuple[int, float, int, float]],
) -> None:
    model = StepTimeModel()
    for num_tokens, chunk_context, decode_context, duration_s in steps:
        model.observe(StepWork(num_tokens, chunk_context, decode_context), duration_s)
        predicted = model.predict(StepWork(512, 1e6, 10**5))
        assert 0 <= predicted < inf


@given(st.integers(0, 10_000))
def test_the_fit_is_the_best_of_all_subsets_of_features(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.random((12, 3)) * random.choice([1.0, -1.0], 3)
    wanted = random.random(12)
    moments, targets = rows.T @ rows + 1e-9 * np.eye(3), rows.T @ wanted

    def loss(fit: np.ndarray) -> float:
        return float(fit @ moments @ fit - 2 * fit @ targets)

    fit = non_negative_fit(moments, targets)
    assert np.all(fit >= 0)
    best = 0.0
    for mask in range(1, 8):
        active = [i for i in range(3) if mask >> i & 1]
        subset = np.zeros(3)
        subset[active] = np.linalg.solve(moments[np.ix_(active, active)], targets[active])
        if np.all(subset >= 0):
            best = min(best, loss(subset))
    assert loss(fit) <= 0.98 * best + 1e-6


@pytest.mark.parametrize("poison", [(StepWork(64, nan), 0.02), (StepWork(64), 1e-300)])
def test_a_step_that_poisons_the_model_makes_it_start_anew(poison: tuple[StepWork, float]) -> None:
    model = taught(200)
    for _ in range(100):
        model.observe(*poison)
    for work in batches(200):
        model.observe(work, machine(work))
    assert np.percentile(errors(model), 90) < 0.10
