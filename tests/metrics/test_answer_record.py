"""An answer's record, told of few tokens, against the definitions over all of them."""

from dataclasses import dataclass, field
from itertools import accumulate
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from tests.support.tokens import came
from vllm_sarathi.latency import Objectives, RequestTimes
from vllm_sarathi.metrics.answer_record import AnswerRecord
from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.policy.answers import Answers
from vllm_sarathi.policy.deadlines import Promise

TICK_S = 1 / 1024  # times in these are exact
ARRIVAL_S = 1000.0
TICKS = st.integers(1, 40).map(lambda ticks: ticks * TICK_S)
KINDS = {"ttft": "ttft_s", "tpot": "tpot_s", "tbt": "tbt_s", "e2e": "e2e_s"}


@dataclass
class Counts:
    """What was counted."""

    met: dict[str, bool] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)
    fluidity: float | None = None
    num_late: int = 0
    slack_s: float = inf

    def began(self, objectives: RequestObjectives, slack_s: float) -> None:
        self.slack_s = slack_s

    def late_tokens(self, num_tokens: int) -> None:
        self.num_late += num_tokens

    def ended(
        self,
        objectives: RequestObjectives,
        met: dict[str, bool],
        took_s: dict[str, float],
        fluidity: float | None,
    ) -> None:
        self.met, self.took_s, self.fluidity = met, took_s, fluidity


def counted(asked: RequestObjectives, gaps_s: list[float], at_once: list[int]) -> Counts:
    """Counts of an answer whose steps come after these gaps, with so many tokens each."""
    counts, answers, promise = Counts(), Answers(), Promise.of(asked)
    record = AnswerRecord(counts, asked, ARRIVAL_S)
    answers.expect("a", promise, ARRIVAL_S, promise.first_due_s(ARRIVAL_S, 0.0), record)
    steps = list(zip(accumulate(gaps_s, initial=ARRIVAL_S), [0, *at_once], strict=False))[1:]
    for now_s, num_tokens in steps[:-1]:
        came(answers, "a", num_tokens, now_s)
    came(answers, "a", steps[-1][1], steps[-1][0], is_last=True)
    assert not answers.begun
    return counts


@st.composite
def objectives(draw: st.DrawFn) -> RequestObjectives:
    ttft_s, tpot_s, tbt_s, e2e_s = (draw(st.none() | TICKS) for _ in range(4))
    pace_s = tpot_s or tbt_s
    stall_s = draw(st.none() | st.just(10 * pace_s)) if pace_s else None
    return RequestObjectives(ttft_s, tbt_s, e2e_s, tpot_s, max_stall_s=stall_s)


@given(objectives(), st.lists(st.tuples(TICKS, st.integers(1, 3)), min_size=1, max_size=30))
def test_verdicts_and_fluidity_are_those_of_all_token_times(
    asked: RequestObjectives, steps: list[tuple[float, int]]
) -> None:
    gaps_s, at_once = map(list, zip(*steps, strict=True))
    counts = counted(asked, gaps_s, at_once)
    steps_s = list(accumulate(gaps_s, initial=ARRIVAL_S))[1:]
    times_s = [time_s for time_s, num in zip(steps_s, at_once, strict=True) for _ in range(num)]
    times = RequestTimes(ARRIVAL_S, times_s)
    alone = {
        kind: times.meets(Objectives(**{name: getattr(asked, name)}))
        for kind, name in KINDS.items()
        if getattr(asked, name) is not None
    }
    assert counts.met == alone
    assert all(counts.met.values()) == times.meets(asked)
    measured_s = {"ttft": times.ttft_s, "tpot": times.tpot_s, "e2e": times.e2e_s}
    assert counts.took_s == {
        kind: time_s
        for kind, time_s in measured_s.items()
        if time_s is not None and kind in counts.met
    }
    assert counts.num_late == sum(gap_s > (asked.tbt_s or inf) for gap_s in times.tbts_s)
    pace_s = asked.tpot_s or asked.tbt_s
    if asked.ttft_s and pace_s:
        assert counts.fluidity == times.fluidity(asked.ttft_s, pace_s)
    else:
        assert counts.fluidity is None


def test_slack_is_what_is_left_of_the_time_to_first_token() -> None:
    assert counted(RequestObjectives(ttft_s=2.0), [1.5], [1]).slack_s == 0.5
    assert counted(RequestObjectives(ttft_s=2.0), [3.0], [1]).slack_s == -1.0
    assert counted(RequestObjectives(tpot_s=2.0), [3.0], [1]).slack_s == inf
