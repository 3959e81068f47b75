from dataclasses import replace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.batch_builder import StallFree
from vllm_sarathi.error_quantile import ErrorQuantile
from vllm_sarathi.step import BatchLimit, RequestView, StepView
from vllm_sarathi.step_time import BATCH_SIZES, StepTimeModel, StepWork
from vllm_sarathi.token_budget import SloTokenBudget, candidates


class Known(StepTimeModel):
    """A model that knows its machine: tiles of 128 tokens of 4 ms, 10 ms on top."""

    def predict(self, work: StepWork) -> float:
        return (
            0.010
            + 0.004 * ceil(work.num_tokens / 128)
            + 1e-9 * work.chunk_context
            + 1e-8 * work.decode_context
        )


def known() -> Known:
    return Known(largest_seen=8192, safety=ErrorQuantile(0.99, value=1.0))


def view(decodes: int, *prompts: int, context: int = 0, computed: int = 0) -> StepView:
    prefills = tuple(RequestView(f"p{i}", n, computed) for i, n in enumerate(prompts))
    return StepView(2048, decodes, decodes, context, prefills)


def chosen(tbt_s: float | None, seen: StepView, by_rate: bool = True) -> tuple[int, BatchLimit]:
    return SloTokenBudget(known(), tbt_s, by_rate=by_rate)(seen)


def test_the_batch_is_as_large_as_the_objective_allows() -> None:
    assert chosen(0.0265, view(10, 9000)) == (512, BatchLimit.OBJECTIVE)
    assert chosen(0.0145, view(10, 9000)) == (128, BatchLimit.OBJECTIVE)


def test_a_batch_just_past_a_tile_cliff_is_not_taken() -> None:
    seen = replace(view(10, 9000), max_num_scheduled_tokens=270)
    assert chosen(0.05, seen) == (256, BatchLimit.TILE)
    assert chosen(0.05, seen, by_rate=False) == (270, BatchLimit.MAXIMUM)


def test_prefill_is_spread_evenly_over_the_batches_that_it_takes_anyway() -> None:
    class FlatBelow512(Known):
        def predict(self, work: StepWork) -> float:
            return 0.010 + 1e-4 * max(work.num_tokens, 512)

    budget = SloTokenBudget(FlatBelow512(largest_seen=8192), 0.093)
    assert budget(view(10, 820))[0] in range(420, 600)
    assert budget(view(10, 720)) == (730, BatchLimit.MAXIMUM)


def test_a_cliff_met_on_the_way_up_does_not_end_it() -> None:
    class CheapBelow257(Known):
        def predict(self, work: StepWork) -> float:
            return 4e-5 * work.num_tokens * (1.4 if work.num_tokens > 256 else 1.0)

    seen = view(10, 9000)
    assert SloTokenBudget(CheapBelow257(largest_seen=512), 0.06)(seen)[0] > 512
    assert SloTokenBudget(CheapBelow257(largest_seen=1024), 0.06)(seen)[0] == 256


def test_without_decodes_the_whole_budget_is_used() -> None:
    assert chosen(0.001, view(0, 9000)) == (2048, BatchLimit.MAXIMUM)


def test_late_chunks_of_a_long_prompt_shrink() -> None:
    sizes = [
        chosen(0.05, view(10, 9000, computed=computed))[0] for computed in (0, 20_000, 100_000)
    ]
    assert all(later < earlier for earlier, later in pairwise(sizes))


def test_long_decode_contexts_leave_less_room() -> None:
    assert chosen(0.05, view(10, 9000, context=10**6))[0] < chosen(0.05, view(10, 9000))[0]


def test_an_impossible_objective_keeps_prefill_alive() -> None:
    plan = StallFree(SloTokenBudget(known(), 0.0001)).plan(view(10, 9000))
    assert plan.num_prefill_tokens == 16


def test_a_huge_objective_uses_the_whole_budget() -> None:
    assert chosen(1000.0, view(10, 9000)) == (2048, BatchLimit.MAXIMUM)


def test_a_pipeline_shares_the_objective_among_its_stages() -> None:
    whole = SloTokenBudget(known(), 0.1)(view(10, 9000))[0]
    staged = SloTokenBudget(known(), 0.1, num_stages=4)(view(10, 9000))[0]
    assert staged < whole


def test_slack_lengthens_a_gap_up_to_the_longest_stall() -> None:
    budget = SloTokenBudget(known(), 0.05, max_stall_s=0.08)
    assert budget.objective_s(view(10)) == 0.05
    assert budget.objective_s(replace(view(10), slack_s=0.02)) == pytest.approx(0.07)
    assert budget.objective_s(replace(view(10), slack_s=9.0)) == 0.08
    strict = SloTokenBudget(known(), 0.05)
    assert strict.objective_s(replace(view(10), slack_s=9.0)) == 0.05


def test_auto_is_five_decode_only_steps() -> None:
    assert SloTokenBudget(known(), None).objective_s(view(10)) == pytest.approx(0.070)


def test_a_cold_model_starts_small_and_grows_no_faster_than_twofold() -> None:
    budget = SloTokenBudget(StepTimeModel(), 0.1)
    seen, largest = view(10, 9000), 0
    for _ in range(12):
        tokens, _ = budget(seen)
        assert tokens <= max(10 + 64, 10 + 2 * largest)
        largest = max(largest, tokens)
        budget.model.observe(StepWork(tokens), 0.010 + tokens * 4e-5)
    assert largest > 1000


@given(
    st.integers(0, 300),
    st.lists(st.integers(1, 900), max_size=3),
    st.lists(st.integers(1, 900), max_size=3),
    st.integers(0, 9),
    st.integers(1, 2048),
)
def test_candidates_hold_all_decodes_and_the_pairs_of_query_and_key_are_exact(
    decodes: int, running: list[int], waiting: list[int], unseen: int, most: int
) -> None:
    queue = waiting + [sum(waiting) // max(len(waiting), 1)] * (unseen if waiting else 0)
    seen = StepView(
        2048,
        decodes,
        decodes,
        prefills=tuple(RequestView(f"r{i}", n, 100 * i) for i, n in enumerate(running)),
        waiting=tuple(RequestView(f"w{i}", n) for i, n in enumerate(waiting)),
        num_waiting=len(queue),
        max_new_prefills=100,
    )
    prompts = [(n, 100 * i) for i, n in enumerate(running)] + [(n, 0) for n in queue]
    for work in candidates(seen, most):
        assert decodes < work.num_tokens <= max(most, decodes)
        assert work.num_tokens in (*BATCH_SIZES, most, decodes + sum(n for n, _ in prompts))
        pairs, left = 0.0, work.num_tokens - decodes
        for length, computed in prompts:
            chunk = min(length, left)
            pairs += chunk * (computed + chunk / 2)
            left -= chunk
        assert left == 0
        assert work.chunk_context == pytest.approx(pairs)


def budget_of_pipeline(num_stages: int) -> SloTokenBudget:
    return SloTokenBudget(
        known(), float("inf"), num_stages=num_stages, num_micro_batches=num_stages
    )


def pipelined(num_stages: int, seen: StepView) -> int:
    return budget_of_pipeline(num_stages)(seen)[0]


def test_a_lone_prompt_is_cut_so_that_it_fills_the_pipeline() -> None:
    whole, *chunks = (pipelined(stages, view(0, 2000)) for stages in (1, 2, 4, 8))
    assert whole == 2048
    assert chunks == sorted(chunks, reverse=True)
    assert 2000 / chunks[-1] >= 4


def test_an_objective_binds_a_pipeline_while_anyone_decodes_in_it() -> None:
    budget = SloTokenBudget(known(), 0.05, num_stages=2, num_micro_batches=2)
    free = replace(view(0, 2000), num_in_flight=0)
    assert budget(free)[0] > budget(replace(free, num_in_flight=3))[0]


def test_an_objective_binds_uneven_micro_batches_as_well() -> None:
    budget = SloTokenBudget(known(), 0.05, num_stages=2, num_micro_batches=1)
    free = replace(view(0, 2000), num_in_flight=0)
    assert budget(free)[0] > budget(replace(free, num_in_flight=3))[0]


def test_a_long_pipeline_takes_even_chunks_where_one_stage_takes_all() -> None:
    assert budget_of_pipeline(8)(view(30, 2000))[1] is BatchLimit.MICRO_BATCH
    assert pipelined(8, view(30, 2000)) < pipelined(1, view(30, 2000)) / 3


def test_a_micro_batch_is_as_long_as_those_in_flight() -> None:
    model = known()
    alone = view(30, 2000)
    for tokens in (96, 160, 256):
        period_s = model.predict(StepWork(tokens, 0.0, alone.decode_context_tokens))
        chosen_s = model.predict(StepWork(pipelined(8, replace(alone, period_s=period_s))))
        free_s = model.predict(StepWork(pipelined(8, alone)))
        assert abs(chosen_s - period_s) <= abs(free_s - period_s)


def test_late_chunks_of_a_long_prompt_shrink_as_their_context_grows() -> None:
    sizes = [pipelined(4, view(8, 4000, computed=computed)) for computed in (0, 20_000, 80_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
