"""Batches read as in the paper: ``D3 P256`` is three decodes and a chunk of 256 tokens."""

import sys
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.policy.batch_builder import DecodeMaximal, StallFree, round_to_tile
from vllm_sarathi.policy.state import RequestView
from vllm_sarathi.policy.step import Backlog, BatchLimit, StepPlan, StepView
from vllm_sarathi.policy.token_budget import FixedTokenBudget


def view(
    decodes: int = 0, running: str = "", waiting: str = "", max_new: int = 100, **fields: Any
) -> StepView:
    """``view(3, "500 20", "90@7")``: three decodes, two running prefills, one waiting, due at 7."""

    def requests(lengths: str, prefix: str) -> tuple[RequestView, ...]:
        parts = (text.partition("@") for text in lengths.split())
        return tuple(
            RequestView(f"{prefix}{i}", int(num), rank=(0, 0, 0, float(due or 0)))
            for i, (num, _, due) in enumerate(parts)
        )

    return StepView(
        **{
            "max_num_scheduled_tokens": 2048,
            "num_decodes": decodes,
            "num_decode_tokens": decodes,
            **fields,
        },
        prefills=requests(running, "r"),
        backlog=Backlog(requests(waiting, "w"), max_new=max_new),
    )


def show(plan: StepPlan) -> str:
    decodes = [f"D{plan.num_decode_tokens}"] * bool(plan.num_decode_tokens)
    return " ".join(decodes + [f"P{chunk.num_tokens}" for chunk in plan.chunks])


def stall_free(budget: int, **fields: Any) -> StallFree:
    return StallFree(FixedTokenBudget(budget), **fields)


@pytest.mark.parametrize(
    ("seen", "batch"),
    [
        (view(3, "1000"), "D3 P253"),
        (view(0, "1000"), "P256"),
        (view(3, "", "1000 500"), "D3 P253"),
        (view(3, "100 1000", "500"), "D3 P100"),
        (view(3), "D3"),
        (view(250, "1000"), "D250 P134"),
        (view(3, "", "500", max_new=0), "D3"),
    ],
)
def test_decode_maximal_runs_one_chunk_and_every_decode(seen: StepView, batch: str) -> None:
    assert show(DecodeMaximal(chunk_size=256, tile_size=128).plan(seen)) == batch


@pytest.mark.parametrize(
    ("seen", "batch"),
    [
        (view(4, "1000"), "D4 P252"),
        (view(4, "12 1000"), "D4 P12 P240"),
        (view(4, "12", "1000"), "D4 P12 P240"),
        (view(4, "", "100 50 500"), "D4 P100 P50 P102"),
        (view(4, "", "100 50 500", max_new=1), "D4 P100"),
        (view(300, "1000"), "D300 P16"),
        (view(4), "D4"),
    ],
)
def test_stall_free_runs_decodes_then_begun_prefills_then_new_ones(
    seen: StepView, batch: str
) -> None:
    assert show(stall_free(256).plan(seen)) == batch


@pytest.mark.parametrize(
    ("seen", "batch", "max_chunk"),
    [
        (view(4, "1000@9", "100@1"), "D4 P100 P152", 152),
        (view(4, "1000@9", "200@1"), "D4 P126 P126", 126),
        (view(4, "20@1 1000@9", "200@2"), "D4 P20 P116 P116", 116),
        (view(4, "1000@9", "600@1"), "D4 P252", sys.maxsize),
        (view(4, "1000@9", "200@1 200@2"), "D4 P200 P52", sys.maxsize),
        (view(4, "1000@1", "100@9"), "D4 P252", sys.maxsize),
        (view(4, "100@9", "100@1"), "D4 P100 P100", sys.maxsize),
        (view(250, "1000@9", "100@1"), "D250 P16", sys.maxsize),
        (view(230, "1000@9", "20@1"), "D230 P20", sys.maxsize),
    ],
)
def test_who_is_due_first_is_served_first_and_leaves_no_room_unused(
    seen: StepView, batch: str, max_chunk: int
) -> None:
    plan = stall_free(256).plan(seen)
    assert (show(plan), plan.max_chunk) == (batch, max_chunk)


def test_vllms_order_stays_where_a_prompt_may_not_be_cut_and_the_first_leaves_most_room() -> None:
    plan = stall_free(256, min_prefill_tokens=200).plan(view(4, "1000@9", "100@1"))
    assert (show(plan), plan.max_chunk) == ("D4 P252", sys.maxsize)


def test_a_limit_on_prefills_holds_for_running_and_new_ones_together() -> None:
    assert show(stall_free(256, max_prefills=2).plan(view(4, "10", "10 500"))) == "D4 P10 P10"


def test_a_tile_larger_than_what_is_left_of_the_maximum_is_not_waited_for() -> None:
    plan = stall_free(100, tile_size=128).plan(view(99, "500", max_num_scheduled_tokens=120))
    assert show(plan) == "D99 P16"


def test_more_decodes_than_the_maximum_leave_no_room_and_break_nothing() -> None:
    assert show(stall_free(64).plan(view(90, "500", max_num_scheduled_tokens=64))) == "D90"


def test_budget_left_over_goes_to_waiting_requests_beyond_the_view() -> None:
    plan = stall_free(256).plan(view(4, "", "100"))
    assert (plan.token_budget, plan.max_new_prefills) == (256, 100)


def test_the_plan_says_what_bounded_it() -> None:
    assert stall_free(256).plan(view(4, "12")).limit is BatchLimit.NO_MORE_PREFILL
    assert stall_free(256).plan(view(4, "1200")).limit is BatchLimit.TOKEN_BUDGET
    assert stall_free(200, tile_size=128).plan(view(4, "1200")).limit is BatchLimit.TILE
    assert stall_free(4096).plan(view(4, "9999")).limit is BatchLimit.MAXIMUM
    assert DecodeMaximal(256).plan(view(4, "9999")).limit is BatchLimit.CHUNK_SIZE


@pytest.mark.parametrize(
    ("num_waiting", "limit"),
    [(6, BatchLimit.TOKEN_BUDGET), (5, BatchLimit.NO_MORE_PREFILL)],
)
def test_prompts_beyond_the_view_fill_a_batch_too(num_waiting: int, limit: BatchLimit) -> None:
    seen = view(0, "", "50 50 50 50")
    seen = replace(seen, backlog=replace(seen.backlog, num_waiting=num_waiting))
    assert stall_free(256).plan(seen).limit is limit


by_rank = attrgetter("rank")
lengths = st.lists(st.integers(1, 3000), max_size=4)


@st.composite
def views(draw: st.DrawFn) -> StepView:
    seen = view(
        draw(st.integers(0, 300)),
        " ".join(map(str, draw(lengths))),
        " ".join(map(str, draw(lengths))),
        max_num_scheduled_tokens=draw(st.integers(1, 2048)),
        max_new=draw(st.integers(0, 4)),
    )
    return seen


def reference(seen: StepView, total: int, max_prefills: int | None) -> dict[str, int]:
    """Hand out the room for prefill token by token, first come, first served."""
    allowed = [r.request_id for r in seen.prefills]
    allowed += [r.request_id for r in seen.backlog.admissible]
    allowed = allowed[:max_prefills]
    left = {r.request_id: r.num_tokens for r in (*seen.prefills, *seen.backlog.shown)}
    given_out: dict[str, int] = {}
    for _ in range(total - seen.num_decode_tokens):
        hungry = [name for name in allowed if left[name]]
        if not hungry:
            break
        left[hungry[0]] -= 1
        given_out[hungry[0]] = given_out.get(hungry[0], 0) + 1
    return given_out


@given(views(), st.integers(1, 2048), st.sampled_from([1, 64, 128]), st.none() | st.integers(1, 3))
def test_stall_free_matches_handing_out_tokens_one_by_one(
    seen: StepView, budget: int, tile: int, most: int | None
) -> None:
    builder = stall_free(budget, tile_size=tile, max_prefills=most)
    floor = seen.num_decode_tokens + builder.min_prefill_tokens
    total, _ = round_to_tile(seen, budget, BatchLimit.TOKEN_BUDGET, tile, floor)
    assert dict(builder.plan(seen).chunks) == reference(seen, total, most)


@given(views(), st.integers(1, 2048), st.sampled_from([1, 64, 128]))
def test_decode_maximal_matches_handing_out_tokens_one_by_one(
    seen: StepView, chunk: int, tile: int
) -> None:
    builder = DecodeMaximal(chunk, tile)
    floor = seen.num_decode_tokens + min(builder.min_prefill_tokens, chunk)
    wanted = seen.num_decode_tokens + chunk
    total, _ = round_to_tile(seen, wanted, BatchLimit.CHUNK_SIZE, tile, floor)
    assert dict(builder.plan(seen).chunks) == reference(seen, total, 1)


@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(0, 9)), max_size=4),
    st.lists(st.tuples(st.integers(1, 900), st.integers(0, 9)), max_size=4),
    st.integers(160, 1024),
)
def test_in_the_order_of_deadlines_batches_are_full_and_nobody_pays_for_a_later_one(
    running: list[tuple[int, int]], waiting: list[tuple[int, int]], budget: int
) -> None:
    prefills = sorted(
        (RequestView(f"r{i}", n, rank=(0, 0, 0, due)) for i, (n, due) in enumerate(running)),
        key=by_rank,
    )
    queue = sorted(
        (RequestView(f"w{i}", n, rank=(0, 0, 0, due)) for i, (n, due) in enumerate(waiting)),
        key=by_rank,
    )
    seen = StepView(2048, 3, 3, 0, tuple(prefills), Backlog(tuple(queue), len(queue), 100))
    plan = stall_free(budget).plan(seen)
    left = sum(request.num_tokens for request in (*prefills, *queue))
    assert plan.num_prefill_tokens == min(left, budget - 3)
    chunks = dict(plan.chunks)
    assert all(0 < chunks[name] <= plan.max_chunk for name in chunks)
    for request in (*prefills, *queue):
        for later in (*prefills, *queue):
            if later.rank > request.rank and chunks.get(request.request_id, 0) < request.num_tokens:
                assert chunks.get(later.request_id, 0) <= chunks.get(request.request_id, 0)


@given(views(), st.integers(1, 4096), st.sampled_from([1, 16, 128]), st.integers(0, 400))
def test_a_batch_is_the_largest_tile_below_the_wanted_or_the_smallest_above_the_floor(
    seen: StepView, wanted: int, tile: int, floor: int
) -> None:
    most = seen.max_num_scheduled_tokens
    ceiling = min(max(wanted, floor), most)
    tiles = [n for n in range(0, most + 1, tile) if n >= floor]
    below = [n for n in tiles if n <= ceiling]
    expected = max(below) if below else min(tiles, default=ceiling)
    assert round_to_tile(seen, wanted, BatchLimit.TOKEN_BUDGET, tile, floor)[0] == expected


@given(views(), st.integers(1, 2048), st.booleans())
def test_every_decode_runs_and_prefill_is_never_starved(
    seen: StepView, size: int, maximal: bool
) -> None:
    plan = (DecodeMaximal(size) if maximal else stall_free(size)).plan(seen)
    assert plan.num_decode_tokens == seen.num_decode_tokens
    room = seen.max_num_scheduled_tokens - seen.num_decode_tokens
    assert bool(plan.chunks) == (any(seen.prompts) and room > 0)
    assert plan.token_budget <= seen.max_num_scheduled_tokens or not plan.chunks
