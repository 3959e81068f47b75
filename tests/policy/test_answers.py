"""When tokens of answers are due, against the times of all before; how long answers are."""

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tokens import came, output
from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.policy.answers import Answer, Answers
from vllm_sarathi.policy.deadlines import Promise


def promise(**fields: float) -> Promise:
    return Promise.of(RequestObjectives(**fields))  # type: ignore[arg-type]


def answer(of: Promise, *times_s: float, first_due_s: float = inf) -> Answer:
    """An answer whose tokens came at these times, one by one."""
    made = Answer(of, first_due_s)
    answers = Answers({"r": made})
    for now_s in times_s:
        came(answers, "r", 1, now_s)
    return made


PACE = promise(tpot_s=0.1, max_stall_s=0.5)


def test_early_tokens_earn_slack_for_later_ones() -> None:
    early = answer(PACE, 10.0, 10.01, 10.02)
    assert early.next_due_s(0, 10.02) == pytest.approx(10.3)


def test_slack_does_not_excuse_a_stall() -> None:
    early = answer(PACE, *(10.0 + i / 1000 for i in range(100)))
    assert early.next_due_s(0, 10.1) == pytest.approx(10.099 + 0.5)


def test_tokens_in_flight_are_taken_to_come_when_the_step_begins() -> None:
    decode = answer(PACE, 10.0)
    assert decode.next_due_s(2, 10.1) == pytest.approx(10.3)
    strict = answer(promise(tbt_s=0.05), 10.0)
    assert strict.next_due_s(0, 10.02) == pytest.approx(10.05)
    assert strict.next_due_s(1, 10.02) == pytest.approx(10.07)


def test_a_first_token_in_flight_comes_when_the_step_begins() -> None:
    assert answer(PACE).next_due_s(1, 10.0) == pytest.approx(10.1)


def test_an_answer_that_comes_late_by_less_than_a_stall_can_still_catch_up() -> None:
    late = answer(PACE, 10.0, 10.55)
    assert not late.is_lost
    assert late.next_due_s(0, 10.55) == pytest.approx(10.2)


def test_a_late_first_token_breaks_the_promise_for_good() -> None:
    late = answer(PACE, 10.0, first_due_s=9.9)
    assert late.is_lost
    came(Answers({"r": late}), "r", 1, 10.01)
    assert late.is_lost


def test_of_a_broken_promise_only_the_bound_on_stalls_is_left() -> None:
    lost = answer(PACE, 10.0, 10.65)
    assert lost.is_lost
    assert lost.pace_s == PACE.stall_s
    assert lost.next_due_s(0, 10.7) == pytest.approx(11.15)
    assert lost.next_due_s(1, 10.7) == pytest.approx(11.2)


def test_the_pace_of_a_broken_promise_is_still_wanted() -> None:
    lost = answer(PACE, 10.0, 10.65)
    assert lost.next_wanted_s(0) == pytest.approx(10.2)
    assert lost.next_wanted_s(2) == pytest.approx(10.4)
    assert answer(PACE, 10.0).next_wanted_s(0) == inf


def test_a_broken_promise_without_a_bound_on_stalls_leaves_nothing() -> None:
    lost = answer(promise(tpot_s=0.1, ttft_s=1.0), 10.0, first_due_s=9.0)
    assert lost.pace_s == inf
    assert lost.next_due_s(0, 10.0) == inf


def test_a_pace_is_wanted_at_which_an_answer_twice_the_average_ends_in_time() -> None:
    answers = Answers()
    answers.expect("before", PACE, 0.0, inf)
    came(answers, "before", 50, 1.0, is_last=True)
    answers.expect("r", promise(e2e_s=30.0), 100.0, 125.0)
    ours = answers.begun["r"]
    came(answers, "r", 1, 110.0)
    assert ours.wanted_tpot_s == pytest.approx(0.2, rel=0.01)
    assert ours.next_wanted_s(0) == pytest.approx(110.2, rel=0.01)
    assert (ours.pace_s, ours.next_due_s(0, 110.0)) == (inf, inf)


def test_being_behind_a_wanted_pace_breaks_no_promise() -> None:
    both = promise(tbt_s=0.05, e2e_s=4.0)
    ours = Answer(both, 10.0, end_due_s=14.0, num_expected=100.0)
    for i in range(50):
        came(Answers({"r": ours}), "r", 1, 10.0 + 0.045 * i)
    assert ours.wanted_tpot_s == 0.04
    assert not ours.is_lost


def test_answers_expect_most_of_what_steps_bring_and_first_tokens_alone() -> None:
    answers = Answers()
    answers.expect("decodes", PACE, 0.0, 10.0)
    came(answers, "decodes", 1, 10.0)
    for at in range(500):
        answers.expect(f"begins{at}", PACE, 0.0, 20.0)
        brought = [output("decodes", 1 + at % 4), output(f"begins{at}", 1)]
        answers.count_drafts(brought)
        answers.came(brought, 10.0)
    assert answers.tokens_per_step == pytest.approx(1 + 0.7 * 1.5, abs=0.05)
    assert answers.begun["begins499"].pace_s == pytest.approx(0.205, abs=0.005)


def test_a_step_in_flight_is_taken_to_bring_what_steps_bring() -> None:
    decode = Answer(PACE, 10.0, tokens_per_step=2.5)
    came(Answers({"r": decode}), "r", 1, 10.0)
    assert decode.next_due_s(1, 10.1) == pytest.approx(10.1 + 0.25)


# Binary fractions, whose sums are exact: a token may come in the very moment that it is due.
paces = st.sampled_from([1 / 64, 1 / 8, inf])
stalls = st.sampled_from([1 / 16, 1 / 2, inf])
gaps = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0, 1 / 128, 1 / 16, 5 / 16, 1])))


@given(paces, stalls, gaps, st.integers(0, 2), st.booleans())
def test_the_next_token_is_due_as_the_times_of_all_before_say(
    tpot_s: float, stall_s: float, more: list[tuple[int, float]], flying: int, is_late: bool
) -> None:
    of = Promise(tpot_s=tpot_s, stall_s=stall_s)
    first_s = now_s = 100.0
    ours, num_tokens, is_lost = Answer(of, 99.0 if is_late else 101.0), 1, is_late
    answers = Answers({"r": ours})
    came(answers, "r", 1, first_s)
    for num_new, gap_s in more:
        now_s += gap_s
        num_tokens += num_new
        came(answers, "r", num_new, now_s)
        if tpot_s < inf:
            is_lost |= now_s > first_s + (num_tokens - 1) * tpot_s + stall_s
    begin_s = now_s + 1 / 128
    due_s = (begin_s if flying else now_s) + stall_s
    if tpot_s < inf and not is_lost:
        due_s = min(due_s, first_s + (num_tokens + flying) * tpot_s)
    assert ours.is_lost == is_lost
    assert ours.next_due_s(flying, begin_s) == due_s
    assert ours.pace_s == (stall_s if is_lost else min(tpot_s, stall_s))


def test_the_mean_output_counts_answers_that_still_run() -> None:
    answers = Answers()
    for i in range(100):
        answers.expect(f"short{i}", PACE, 0.0, inf)
        answers.expect(f"long{i}", PACE, 0.0, inf)
    for i in range(100):
        came(answers, f"short{i}", 10, 1.0, is_last=True)
        came(answers, f"long{i}", 90, 1.0)
    assert 80 < answers.mean_output <= 90


@pytest.mark.parametrize("mean", [20, 200])
def test_the_mean_output_is_unbiased_while_long_answers_run(mean: int) -> None:
    draw, answers = random.Random(0), Answers()
    left: dict[str, int] = {}
    found = []
    for step in range(20_000 * mean // 200):
        while len(left) < 100:
            name = f"r{step}.{len(left)}"
            left[name] = 1 + int(draw.expovariate(1 / (mean - 0.5)))
            answers.expect(name, PACE, 0.0, inf)
        for name in list(left):
            left[name] -= 1
            came(answers, name, 1, float(step), is_last=not left[name])
            if not left[name]:
                del left[name]
        found.append(answers.mean_output)
    late = found[len(found) // 2 :]
    assert sum(late) / len(late) == pytest.approx(mean, rel=0.1)


def test_no_answer_is_taken_to_be_longer_than_the_longest_so_far() -> None:
    answers = Answers()
    for i in range(50):
        answers.expect(f"r{i}", PACE, 0.0, inf)
        came(answers, f"r{i}", 7, 1.0)
    assert answers.mean_output == 7


def test_before_any_answer_nothing_is_expected() -> None:
    assert Answers().mean_output == 0


def test_the_mean_output_follows_a_load_that_changes() -> None:
    answers = Answers()
    for i in range(4000):
        answers.expect("r", PACE, 0.0, inf)
        came(answers, "r", 10 if i < 1000 else 500, 1.0, is_last=True)
    assert answers.mean_output > 490


outcomes = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["last", "abort", "runs"])))


@given(outcomes)
def test_answers_that_ended_are_forgotten(done: list[tuple[int, str]]) -> None:
    answers = Answers()
    for i, (num_tokens, outcome) in enumerate(done):
        answers.expect(f"r{i}", PACE, 0.0, inf)
        for _ in range(num_tokens):
            came(answers, f"r{i}", 1, 1.0)
        if outcome == "last":
            came(answers, f"r{i}", 1, 1.0, is_last=True)
        elif outcome == "abort":
            answers.forget(f"r{i}")
    assert set(answers.begun) == {f"r{i}" for i, (_, how) in enumerate(done) if how == "runs"}
    assert answers.mean_output <= 6


def test_tokens_of_a_request_that_is_not_followed_are_no_matter() -> None:
    answers = Answers()
    came(answers, "stranger", 5, 1.0, is_last=True)
    answers.forget("stranger")
    assert answers.mean_output == 0
