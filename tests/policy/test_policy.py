"""From the state of vLLM's scheduler to a plan: what the parts of a policy decide together."""

from typing import Any

import pytest

from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.micro_batch import Cohorts
from vllm_sarathi.policy.policy import Policy
from vllm_sarathi.policy.state import (
    NOTHING_DUE,
    Decodes,
    Due,
    KvRoom,
    Outlook,
    RequestView,
    SchedulerState,
)
from vllm_sarathi.policy.step import BatchLimit, BatchSize, RunningOrder, StepPlan, StepView
from vllm_sarathi.policy.step_time import StepTimeModel
from vllm_sarathi.policy.token_budget import FixedTokenBudget, SloTokenBudget

AS_PLANNED = Outlook(is_as_planned=True)


def state(
    decodes: str = "", prefills: str = "", waiting: str = "", **fields: Any
) -> SchedulerState:
    """``state("abc", "500", "90")``: three decodes, one running prefill, one that waits."""
    running, queue = (
        tuple(RequestView(f"{kind}{i}", int(num)) for i, num in enumerate(lengths.split()))
        for kind, lengths in (("p", prefills), ("w", waiting))
    )
    room = fields.pop("num_free", 1000)
    needed = tuple(-(-request.num_tokens // 16) for request in queue)
    return SchedulerState(
        **{
            "max_num_scheduled_tokens": 2048,
            "max_chunk": 2048,
            "num_seqs_left": 100,
            "kv": KvRoom(1000, room, len(decodes) + len(running), 16, waiting_blocks=needed),
            "decodes": Decodes(list(decodes), [1] * len(decodes), [100] * len(decodes)),
            "num_decodes": len(decodes),
            "prefills": running,
            "waiting": queue,
            "num_waiting": len(queue),
            "outlook": AS_PLANNED,
            **fields,
        }
    )


def show(plan: StepPlan) -> str:
    """``D1 P255 -bc``: one decode and a chunk; b and c are skipped."""
    parts = [f"D{plan.num_decode_tokens}"] * bool(plan.num_decode_tokens)
    parts += [f"P{chunk.num_tokens}" for chunk in plan.chunks]
    return " ".join(parts + ["-" + "".join(plan.skipped_decodes)] * bool(plan.skipped_decodes))


def policy(pauses: bool = False, **fields: Any) -> Policy:
    """A budget of 256 tokens; decodes pause whenever they may, or never."""

    def budget(view: StepView) -> BatchSize:
        return BatchSize(256, BatchLimit.TOKEN_BUDGET, pauses and view.may_pause)

    return Policy(StepTimeModel(), StallFree(budget), pauses_decodes=pauses, **fields)


def test_without_a_builder_every_batch_is_vllms() -> None:
    plan = Policy(StepTimeModel()).plan(state("abc", "500", "90", is_in_order=False))
    assert plan == StepPlan(
        2048, num_decode_tokens=3, decode_context_tokens=300, limit=BatchLimit.VLLM
    )


def test_decodes_run_then_prefills_then_new_ones() -> None:
    plan = policy().plan(state("abc", "100", "90"))
    assert (show(plan), plan.token_budget, plan.decode_context_tokens) == ("D3 P100 P90", 256, 300)


def test_without_prefill_vllm_admits_whom_it_would() -> None:
    assert policy().plan(state("abc")).max_new_prefills is None


def test_nobody_is_admitted_while_free_blocks_are_kept_for_running_requests() -> None:
    plan = policy().plan(state("abc", waiting="90", num_free=3))
    assert (show(plan), plan.max_new_prefills, plan.limit) == ("D3", 0, BatchLimit.KV_BLOCKS)


def test_decodes_behind_a_prefill_go_first() -> None:
    assert policy().plan(state("abc", "500", is_in_order=False)).order is RunningOrder.DECODES_FIRST


def test_a_batch_without_prefill_leaves_vllms_list_alone() -> None:
    assert policy().plan(state("abc", is_in_order=False)).order is RunningOrder.UNCHANGED


# --- decodes that pause


def test_decodes_that_pause_are_absent_and_prefill_has_the_batch() -> None:
    plan = policy(pauses=True).plan(state("abc", "500"))
    assert (show(plan), plan.decode_context_tokens, plan.pauses_decodes) == ("P256 -abc", 0, True)


def test_only_decodes_that_are_ready_are_absent() -> None:
    assert show(policy(pauses=True).plan(state("ab", "500", num_decodes=5))) == "P256 -ab"


@pytest.mark.parametrize(
    ("seen", "batch"),
    [
        (state("abc", "500", outlook=Outlook()), "D3 P253"),
        (state("abc"), "D3"),
        (state("abc", "500", has_adapters=True), "D3 P253"),
        (state("abc", "500", num_free=36), "D3 P253"),
    ],
    ids=["not as planned", "no prefill", "adapters", "few blocks"],
)
def test_decodes_do_not_pause_where(seen: SchedulerState, batch: str) -> None:
    assert show(policy(pauses=True).plan(seen)) == batch


def test_decodes_pause_while_free_blocks_surely_hold_all_that_vllm_may_schedule() -> None:
    blocks = 2 * 4 + -(-(500 + 3) // 16)  # three decodes and a prefill of 500 tokens
    batches = [
        show(policy(pauses=True).plan(state("abc", "500", num_free=blocks + n))) for n in (-1, 0)
    ]
    assert batches == ["D3 P253", "P256 -abc"]


def test_decodes_pause_for_a_prompt_that_waits_too() -> None:
    assert show(policy(pauses=True).plan(state("abc", waiting="500"))) == "P256 -abc"


def test_a_policy_that_pauses_nobody_does_not_let_its_budget() -> None:
    views: list[StepView] = []

    def budget(view: StepView) -> BatchSize:
        views.append(view)
        return BatchSize(256, BatchLimit.TOKEN_BUDGET)

    Policy(StepTimeModel(), StallFree(budget)).plan(state("abc", "500"))
    assert [view.may_pause for view in views] == [False]


# --- cohorts


def cohorts() -> Policy:
    return policy(cohorts=Cohorts(2))


def test_decodes_of_other_cohorts_are_absent() -> None:
    halves = cohorts()
    batches = [show(halves.plan(state("abcd", "1000"))) for _ in range(2)]
    assert batches == ["D2 P254 -cd", "D2 P254 -ab"]


def test_skipped_decodes_are_told_to_the_budget() -> None:
    views: list[StepView] = []

    def budget(view: StepView) -> BatchSize:
        views.append(view)
        return BatchSize(256, BatchLimit.TOKEN_BUDGET)

    seen = state("abcd", "1000", num_decodes=6)
    Policy(StepTimeModel(), StallFree(budget), cohorts=Cohorts(2)).plan(seen)
    assert [(view.num_decodes, view.num_other_decodes) for view in views] == [(3, 3)]


@pytest.mark.parametrize(
    "fields", [{"num_free": 8}, {"has_adapters": True}], ids=["few blocks", "adapters"]
)
def test_all_decodes_run_where_vllm_has_to_see_them(fields: dict[str, Any]) -> None:
    halves = cohorts()
    halves.plan(state("abcd"))
    assert show(halves.plan(state("abcd", **fields))) == "D4"
    assert show(halves.plan(state("abcd"))) == "D2 -cd"


# --- objectives


@pytest.mark.parametrize(
    ("due", "objective_s"), [(Due(in_s=0.05, pace_s=0.05), 0.05), (NOTHING_DUE, None)]
)
def test_a_plan_names_its_objective_where_there_is_one(due: Due, objective_s: float | None) -> None:
    model = StepTimeModel()
    plan = Policy(model, None, SloTokenBudget(model)).plan(state("abc", due=due))
    assert plan.objective_s == objective_s


def test_a_fixed_budget_names_no_objective() -> None:
    fixed = Policy(StepTimeModel(), StallFree(FixedTokenBudget(256)))
    assert fixed.plan(state("abc", "500")).objective_s is None
