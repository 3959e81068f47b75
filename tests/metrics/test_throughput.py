import pytest

from vllm_sarathi.metrics import throughput
from vllm_sarathi.metrics.catalogue import Catalogue
from vllm_sarathi.metrics.throughput import MIN_STEPS, ThroughputRecorder


class Server:
    """Counts steps, and reads what is shown."""

    def __init__(self, ttft_s: float | None) -> None:
        self.catalogue = Catalogue({"engine": "0"})
        self.recorder = ThroughputRecorder(self.catalogue, ttft_s)

    def run(self, num_steps: int, num_prefill: int, is_full: bool = True) -> None:
        """Steps of 100 ms with 10 decodes."""
        for _ in range(num_steps):
            self.recorder.finished(num_prefill, 10, 0.1, is_full)

    def shown(self, name: str) -> float | None:
        return self.catalogue.registry.get_sample_value(f"vllm_sarathi:{name}", {"engine": "0"})


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(
        throughput.logger, "info", lambda text, *values: found.append(text % values)
    )
    return found


def test_throughput_is_tokens_over_busy_time() -> None:
    server = Server(None)
    server.run(5, 200)
    assert server.shown("prefill_tokens_per_second") == pytest.approx(2000)
    assert server.shown("decode_tokens_per_second") == pytest.approx(100)


def test_steps_that_all_prefill_fits_in_do_not_say_how_much_would() -> None:
    server = Server(None)
    server.run(5, 3, is_full=False)
    assert server.shown("prefill_tokens_per_second") is None
    server.run(5, 200)
    server.run(50, 3, is_full=False)
    assert server.shown("prefill_tokens_per_second") == pytest.approx(2000)


def test_a_queue_is_recommended_that_is_served_within_the_objective(lines: list[str]) -> None:
    server = Server(2.0)
    server.run(MIN_STEPS - 1, 200)
    assert server.shown("recommended_max_num_queued_tokens") is None
    server.run(1, 200)
    assert server.shown("recommended_max_num_queued_tokens") == 4000
    assert len(lines) == 1
    assert "--max-num-queued-tokens 4000" in lines[0]


def test_a_recommendation_is_logged_again_once_it_has_changed_by_half(lines: list[str]) -> None:
    server = Server(2.0)
    server.run(MIN_STEPS, 200)
    server.run(3000, 280)
    assert len(lines) == 1
    server.run(3000, 310)
    assert len(lines) == 2
    server.run(3000, 190)
    assert len(lines) == 3


def test_nothing_is_recommended_without_an_objective(lines: list[str]) -> None:
    server = Server(None)
    server.run(MIN_STEPS, 200)
    assert server.shown("recommended_max_num_queued_tokens") is None
    assert not lines
