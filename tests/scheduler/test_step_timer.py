import pytest

from vllm_sarathi.scheduler.step_timer import StepTimer


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_lone_step_takes_from_its_schedule_to_its_result(clock: Clock) -> None:
    timer = StepTimer[str]()
    timer.scheduled("a", "first")
    clock.now_s += 3
    assert timer.finished("a", drained=True) == ("first", 3.0)
    clock.now_s += 50
    timer.scheduled("b", "second")
    clock.now_s += 2
    assert timer.finished("b", drained=False) == ("second", 2.0)


def test_with_batches_in_flight_a_step_takes_from_one_result_to_the_next(clock: Clock) -> None:
    timer = StepTimer[str]()
    timer.scheduled("a", "first")
    timer.scheduled("b", "second")
    clock.now_s += 3
    assert timer.finished("a", drained=False) == ("first", 3.0)
    timer.scheduled("c", "third")
    clock.now_s += 2
    assert timer.finished("b", drained=False) == ("second", 2.0)


def test_time_between_a_result_and_the_next_schedule_counts_while_requests_are_there(
    clock: Clock,
) -> None:
    timer = StepTimer[str]()
    timer.scheduled("a", "first")
    clock.now_s += 1
    timer.finished("a", drained=False)
    clock.now_s += 0.5
    timer.scheduled("b", "second")
    clock.now_s += 1
    assert timer.finished("b", drained=False) == ("second", 1.5)


def test_a_schedule_that_finds_nothing_is_a_pause(clock: Clock) -> None:
    timer = StepTimer[str]()
    timer.scheduled("a", "first")
    clock.now_s += 1
    timer.finished("a", drained=False)
    timer.idle()
    clock.now_s += 9
    timer.scheduled("b", "second")
    clock.now_s += 1
    assert timer.finished("b", drained=False) == ("second", 1.0)


def test_a_pipeline_that_fills_tells_no_stage_time(clock: Clock) -> None:
    timer = StepTimer[str](num_stages=2)
    timer.scheduled("a", "first")
    timer.scheduled("b", "second")
    clock.now_s += 4
    assert timer.finished("a", drained=False) == ("first", None)
    clock.now_s += 2
    assert timer.finished("b", drained=False) == ("second", 2.0)


def test_a_pipeline_with_gaps_tells_no_stage_time(clock: Clock) -> None:
    timer = StepTimer[str](num_stages=3)
    timer.scheduled("a", "first")
    timer.scheduled("b", "second")
    clock.now_s += 3
    assert timer.finished("a", drained=False) == ("first", None)
    timer.scheduled("c", "third")
    clock.now_s += 1
    assert timer.finished("b", drained=False) == ("second", None)
    clock.now_s += 2
    assert timer.finished("c", drained=False) == ("third", None)


def test_a_result_of_nothing_that_was_scheduled_is_ignored(clock: Clock) -> None:
    assert StepTimer[str]().finished("empty", drained=False) is None
