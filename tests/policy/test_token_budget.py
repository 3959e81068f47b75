from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.state import Due, RequestView
from vllm_sarathi.policy.step import Backlog, BatchLimit, BatchSize, StepView
from vllm_sarathi.policy.step_time import BATCH_SIZES, ErrorQuantile, StepTimeModel, StepWork
from vllm_sarathi.policy.token_budget import SloTokenBudget, candidates


class Known(StepTimeModel):
    """A model that knows its machine: tiles of 128 tokens of 4 ms, 10 ms on top."""

    def has_seen(self, num_tokens: int) -> bool:
        return num_tokens <= self.largest_seen

    def predict(self, work: StepWork) -> float:
        return (
            0.010
            + 0.004 * ceil(work.num_tokens / 128)
            + 1e-9 * work.chunk_context
            + 1e-8 * work.decode_context
        )


def known() -> Known:
    return Known(100, 8192, ErrorQuantile(0.99, value=1.0))


def view(decodes: int, *prompts: int, context: int = 0, computed: int = 0) -> StepView:
    prefills = tuple(RequestView(f"p{i}", n, computed) for i, n in enumerate(prompts))
    return StepView(2048, decodes, decodes, context, prefills)


@dataclass(frozen=True)
class Promised:
    """A budget for decodes that were all promised the same gap; None: derived from their steps."""

    budget: SloTokenBudget
    tbt_s: float | None

    def view(self, seen: StepView) -> StepView:
        if self.tbt_s is None:
            return replace(seen, due=Due(has_auto=True))
        return replace(seen, due=Due(self.tbt_s - seen.outlook.paused_s, self.tbt_s))

    def objective_s(self, seen: StepView) -> float:
        return self.budget.objective_s(self.view(seen))

    def __call__(self, seen: StepView) -> BatchSize:
        return self.budget(self.view(seen))


def slo(model: StepTimeModel, tbt_s: float | None, **fields: Any) -> Promised:
    return Promised(SloTokenBudget(model, **fields), tbt_s)


def looking(seen: StepView, **fields: Any) -> StepView:
    return replace(seen, outlook=replace(seen.outlook, **fields))


def pausing(seen: StepView) -> StepView:
    return replace(seen, may_pause=True)


def chosen(tbt_s: float | None, seen: StepView, by_rate: bool = True) -> tuple[int, BatchLimit]:
    return slo(known(), tbt_s, by_rate=by_rate)(seen)[:2]


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

    budget = slo(FlatBelow512(largest_seen=8192), 0.093)
    assert budget(view(10, 820))[0] in range(420, 600)
    assert budget(view(10, 720)) == (730, BatchLimit.MAXIMUM, False)


def test_a_size_that_was_never_tried_gets_the_benefit_of_the_doubt() -> None:
    class CheapBelow257(Known):
        def predict(self, work: StepWork) -> float:
            return 4e-5 * work.num_tokens * (1.05 if work.num_tokens > 256 else 1.0)

    seen = view(10, 9000)
    assert slo(CheapBelow257(largest_seen=256), 0.06)(seen).num_tokens > 256
    assert slo(CheapBelow257(largest_seen=2048), 0.06)(seen).num_tokens == 256


class BestAt512(Known):
    """512 tokens are the best batch: 10 ms, while others take 25 us a token; and contexts."""

    def predict(self, work: StepWork) -> float:
        tokens_s = 0.010 if work.num_tokens == 512 else 25e-6 * max(work.num_tokens, 256)
        return tokens_s + 1e-7 * work.decode_context


def best_at_512(tbt_s: float = 0.050, model: StepTimeModel | None = None) -> Promised:
    return slo(model or BestAt512(100, 8192, ErrorQuantile(0.99, value=1.0)), tbt_s)


PAUSING = pausing(view(10, 9000, context=50_000))  # contexts take 5 ms


def test_decodes_sit_out_the_batches_that_fit_between_two_tokens() -> None:
    waits = [best_at_512()(looking(PAUSING, paused_s=1e-2 * i)).pauses_decodes for i in range(6)]
    assert waits == [True, True, True, False, False, False]
    assert best_at_512()(PAUSING).num_tokens == 512


def test_a_batch_with_decodes_that_have_waited_fits_what_is_left_of_the_objective() -> None:
    assert best_at_512()(looking(PAUSING, paused_s=0.030)).num_tokens == 512
    for paused_s in (0.037, 0.041):
        size = best_at_512()(looking(PAUSING, paused_s=paused_s))
        assert paused_s + 25e-6 * size.num_tokens + 0.005 <= 0.050
    late = StallFree(best_at_512()).plan(looking(PAUSING, paused_s=9.0))
    assert (late.num_decode_tokens, late.num_prefill_tokens) == (10, 16)


def test_the_less_contexts_take_the_fewer_batches_decodes_sit_out() -> None:
    def longest_wait_s(context: int) -> float:
        budget = best_at_512(tbt_s=1.0)
        seen = replace(PAUSING, decode_context_tokens=context)
        waits = [ms / 1e3 for ms in range(999) if budget(looking(seen, paused_s=ms / 1e3))[2]]
        return max(waits, default=0.0)

    waits = [longest_wait_s(context) for context in (100, 10_000, 50_000, 200_000)]
    assert waits == sorted(waits)
    assert waits[0] == 0.0
    assert waits[-1] < 0.2


def test_no_coefficients_that_a_fit_may_have_make_a_decision_fail() -> None:
    for weights in ([0.0] * 5, [0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0]):
        model = StepTimeModel(100, 8192, _weights=weights, _corrections={16: (2.0, 9)})
        assert 0 <= slo(model, 0.05)(PAUSING).num_tokens <= 2048


@pytest.mark.parametrize(
    ("budget", "seen"),
    [
        (best_at_512(), replace(PAUSING, may_pause=False)),
        (best_at_512(), replace(PAUSING, prefills=(RequestView("short", 1000),))),
        (best_at_512(tbt_s=0.024), PAUSING),
        (best_at_512(tbt_s=float("inf")), PAUSING),
        (best_at_512(model=BestAt512(3, 8192, ErrorQuantile(0.99, value=1.0))), PAUSING),
    ],
    ids=["hidden", "little prefill", "tight", "no objective", "cold"],
)
def test_decodes_do_not_wait_where_nothing_is_won_or_known(
    budget: Promised, seen: StepView
) -> None:
    assert not budget(seen).pauses_decodes


@given(
    st.floats(0.012, 0.5),
    st.integers(1, 300),
    st.integers(1, 20_000),
    st.integers(0, 2_000_000),
)
def test_no_gap_exceeds_an_objective_that_can_be_met(
    tbt_s: float, decodes: int, prompt: int, context: int
) -> None:
    builder, model = StallFree(best_at_512(tbt_s=tbt_s)), BestAt512()
    least_s = model.predict(StepWork(decodes + 16, 0.0, context))
    paused_s, left = 0.0, prompt
    while left:
        seen = looking(pausing(view(decodes, left, context=context)), paused_s=paused_s)
        plan = builder.plan(seen)
        left -= plan.num_prefill_tokens
        total = plan.num_decode_tokens + plan.num_prefill_tokens
        took_s = model.predict(StepWork(total, 0.0, 0 if plan.pauses_decodes else context))
        assert paused_s + took_s <= max(tbt_s, least_s) + 1e-9
        paused_s = paused_s + took_s if plan.pauses_decodes else 0.0


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
    plan = StallFree(slo(known(), 0.0001)).plan(view(10, 9000))
    assert (plan.num_prefill_tokens, plan.limit) == (16, BatchLimit.OBJECTIVE)


def test_a_huge_objective_uses_the_whole_budget() -> None:
    assert chosen(1000.0, view(10, 9000)) == (2048, BatchLimit.MAXIMUM)


def test_a_pipeline_shares_the_objective_among_its_stages() -> None:
    whole = slo(known(), 0.1)(view(10, 9000))[0]
    staged = slo(known(), 0.1, num_stages=4)(view(10, 9000))[0]
    assert staged < whole


def test_a_step_ends_in_time_for_the_earliest_token_but_a_late_one_leaves_half_the_pace() -> None:
    budget = SloTokenBudget(known())
    for in_s, objective_s in ((0.2, 0.2), (0.05, 0.05), (0.03, 0.03), (0.01, 0.025), (-9, 0.025)):
        seen = replace(view(10), due=Due(in_s, pace_s=0.05))
        assert budget.objective_s(seen) == pytest.approx(objective_s)


@pytest.mark.parametrize(
    ("wanted_in_s", "gap_s"), [(0.9, 0.5), (0.04, 0.04), (0.02, 0.028), (-9, 0.028)]
)
def test_what_is_wanted_leaves_prefill_half_of_the_time(wanted_in_s: float, gap_s: float) -> None:
    budget = SloTokenBudget(known())  # a step that only decodes takes 14 ms
    seen = replace(view(10, 90_000), max_num_scheduled_tokens=90_000)
    wanted = replace(seen, due=Due(0.5, pace_s=0.5, wanted_in_s=wanted_in_s))
    assert budget(wanted) == budget(replace(seen, due=Due(gap_s, pace_s=0.01)))
    assert budget.objective_s(wanted) == 0.5


def test_where_nothing_was_promised_there_is_no_bound() -> None:
    assert SloTokenBudget(known()).objective_s(view(10)) == inf


def test_of_promises_and_derived_gaps_the_tighter_one_holds() -> None:
    budget = SloTokenBudget(known())
    for in_s, objective_s in ((0.05, 0.05), (0.5, 0.070)):
        seen = replace(view(10), due=Due(in_s, 0.05, has_auto=True))
        assert budget.objective_s(seen) == pytest.approx(objective_s)


def test_auto_is_five_decode_only_steps() -> None:
    assert slo(known(), None).objective_s(view(10)) == pytest.approx(0.070)


def test_a_cold_model_starts_small_and_grows_no_faster_than_twofold() -> None:
    budget = slo(StepTimeModel(), 0.1)
    seen, largest = view(10, 9000), 0
    for _ in range(12):
        tokens = budget(seen).num_tokens
        assert tokens <= max(10 + 64, 10 + 2 * largest)
        largest = max(largest, tokens)
        budget.budget.model.observe(StepWork(tokens), 0.010 + tokens * 4e-5)
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
        backlog=Backlog(
            tuple(RequestView(f"w{i}", n) for i, n in enumerate(waiting)), len(queue), 100
        ),
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


def budget_of_pipeline(num_stages: int) -> Promised:
    return slo(known(), inf, num_stages=num_stages, balances=num_stages > 1)


def pipelined(num_stages: int, seen: StepView) -> int:
    return budget_of_pipeline(num_stages)(seen)[0]


def test_a_lone_prompt_is_cut_so_that_it_fills_the_pipeline() -> None:
    whole, *chunks = (pipelined(stages, view(0, 2000)) for stages in (1, 2, 4, 8))
    assert whole == 2048
    assert chunks == sorted(chunks, reverse=True)
    assert 2000 / chunks[-1] >= 4


def test_an_objective_binds_a_pipeline_while_anyone_decodes_in_it() -> None:
    budget = slo(known(), 0.05, num_stages=2, balances=True)
    free = replace(view(0, 2000), num_other_decodes=0)
    assert budget(free)[0] > budget(replace(free, num_other_decodes=3))[0]


def test_an_objective_binds_uneven_micro_batches_as_well() -> None:
    budget = slo(known(), 0.05, num_stages=2, balances=False)
    free = replace(view(0, 2000), num_other_decodes=0)
    assert budget(free)[0] > budget(replace(free, num_other_decodes=3))[0]


def test_a_long_pipeline_takes_even_chunks_where_one_stage_takes_all() -> None:
    assert budget_of_pipeline(8)(view(30, 2000))[1] is BatchLimit.MICRO_BATCH
    assert pipelined(8, view(30, 2000)) < pipelined(1, view(30, 2000)) / 3


def test_a_micro_batch_is_as_long_as_those_in_flight() -> None:
    model = known()
    alone = view(30, 2000)
    for tokens in (96, 160, 256):
        period_s = model.predict(StepWork(tokens, 0.0, alone.decode_context_tokens))
        chosen_s = model.predict(StepWork(pipelined(8, looking(alone, period_s=period_s))))
        free_s = model.predict(StepWork(pipelined(8, alone)))
        assert abs(chosen_s - period_s) <= abs(free_s - period_s)


def test_late_chunks_of_a_long_prompt_shrink_as_their_context_grows() -> None:
    sizes = [pipelined(4, view(8, 4000, computed=computed)) for computed in (0, 20_000, 80_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
