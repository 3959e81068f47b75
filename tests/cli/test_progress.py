import io

import pytest

from vllm_sarathi.cli import progress
from vllm_sarathi.cli.progress import Watch
from vllm_sarathi.cli.tasks import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_comes_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(progress, "perf_counter", lambda: now_s)
    stream = io.StringIO()
    watch = Watch(["a, seed 0", "a, seed 1"], stream)
    for now_s in (1.0, 31.0, 32.0, 90.0):
        watch.told(1, Progress(0.5, f"run 3 at {now_s} requests/s"))
    watch.close()
    assert stream.getvalue().splitlines() == [
        "0 of 2 done; a, seed 1: run 3 at 31.0 requests/s; 0.5 min so far",
        "0 of 2 done; a, seed 1: run 3 at 90.0 requests/s; 1.5 min so far",
    ]


def test_on_a_terminal_the_bar_moves_within_a_run() -> None:
    stream = Terminal()
    watch = Watch(["a"], stream)
    watch.told(0, Progress(0.5, "50%"))
    watch.close()
    assert " 50%|" in stream.getvalue()
