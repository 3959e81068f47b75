import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.command_line import output
from tests.support.metrics_server import recorded, shown
from vllm_sarathi.cli.main import main
from vllm_sarathi.top.scrape import parse
from vllm_sarathi.top.screen import draw
from vllm_sarathi.top.server import Server, State
from vllm_sarathi.top.span import Span

SARATHI = (recorded("sarathi_1"), recorded("sarathi_2"))
STOCK = (recorded("stock_1"), recorded("stock_2"))


def watched(name: str, texts: tuple[str, str] | None) -> Server:
    """A server that showed two texts 25 seconds apart, or does not answer."""
    server = Server(name)
    if texts:
        server.state = State(Span(*(parse(text, 25 * i) for i, text in enumerate(texts))))
    return server


def drawn(servers: Sequence[Server], width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(draw(servers, width))
    return capture.get().splitlines()


def figures(servers: Sequence[Server]) -> dict[str, list[str]]:
    """The cells by label; a label takes the first 26 columns, a server 18."""
    lines = drawn(servers)
    return {line[:26].strip(): [c.strip() for c in (line[26:44], line[44:62])] for line in lines}


BOTH = figures([watched("a:1", SARATHI), watched("b:1", STOCK)])


@pytest.mark.parametrize(
    ("label", "cells"),
    [
        ("sarathi preset", ["slo", "-"]),
        ("running + waiting", ["4 + 0", "0 + 0"]),
        ("KV cache used", ["5%", "0%"]),
        ("requests/s", ["1.4", "1.4"]),
        ("prompt + output tokens/s", ["158 + 42.5", "85.8 + 34.9"]),
        ("TTFT, ms", ["562/4500/7217", "425/3650/4865"]),
        ("TBT, ms", ["72.7/226/1398", "46.3/221/2295"]),
        ("TTFT objective, ms", ["8000", "-"]),
        ("TBT objective now, ms", ["75.5", "-"]),
        ("interactive ttft met", ["95% of 21", "-"]),
        ("interactive tpot met", ["0% of 21", "-"]),
        ("interactive ttft left, s", ["1.23/0.3/-0.44", "-"]),
        ("measured / predicted", ["1.01/2.71/5", "-"]),
        ("bound by objective", ["45%", "-"]),
        ("none admitted: pace", ["1%", "-"]),
    ],
)
def test_what_real_servers_did_is_side_by_side(label: str, cells: list[str]) -> None:
    assert BOTH[label] == cells


def test_the_example_shows_what_is_drawn() -> None:
    lines = drawn([watched("sarathi:8000", SARATHI), watched("stock:8000", STOCK)])
    example = Path(__file__).parents[2] / "examples" / "monitoring" / "README.md"
    assert "\n".join(line.rstrip() for line in lines) in example.read_text()


def test_a_stock_server_alone_has_no_row_that_it_cannot_fill() -> None:
    found = figures([watched("a:1", STOCK)])
    assert {"TTFT, ms", "KV cache used"} <= set(found)
    assert not {
        label for label in found if "objective" in label or "step" in label or "sarathi" in label
    }
    assert not [label for label, cells in found.items() if cells[0] == "-"]


@pytest.mark.parametrize(
    "name", ["num_preemptions", "kv_cache_usage", "time_to_first", "request_s"]
)
def test_a_metric_that_a_server_lacks_is_a_dash(name: str) -> None:
    without = tuple(
        "\n".join(line for line in text.split("\n") if not line.startswith(f"vllm:{name}"))
        for text in STOCK
    )
    lost = [cells[0] for cells in figures([watched("a:1", without)]).values()]  # type: ignore[arg-type]
    assert lost.count("-") == 1


def test_one_scrape_shows_the_load_and_no_rate() -> None:
    server = watched("a:1", SARATHI)
    assert server.state.span
    server.state = State(Span(server.state.span.last, server.state.span.last))
    found = figures([server])
    assert found["running + waiting"][0] == "4 + 0"
    assert found["requests/s"][0] == "-"
    assert found["interactive ttft met"][0] == "-"


def test_an_objective_that_no_step_has_shown_yet_is_not_0() -> None:
    unset = 'vllm_sarathi:tbt_objective_seconds 0\nvllm_sarathi:settings_info{preset="slo"} 1\n'
    assert "TBT objective now, ms" not in figures([watched("a:1", (unset, unset))])


def test_faults_of_any_time_are_shown() -> None:
    faulty = tuple(f'{text}vllm_sarathi:faults_total{{where="plan"}} 2\n' for text in SARATHI)
    found = figures([watched("a:1", faulty), watched("b:1", STOCK)])  # type: ignore[arg-type]
    assert found["faults since its start"] == ["2", "-"]
    assert "faults since its start" not in BOTH


@pytest.mark.parametrize("width", [80, 44, 300])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    servers = [watched(f"a-very-long-name-of-a-host.example:{i}", SARATHI) for i in range(1, 5)]
    assert max(map(len, drawn(servers, width))) <= width


def test_servers_that_do_not_fit_side_by_side_come_below() -> None:
    lines = drawn([watched(f"host:{i}", STOCK) for i in range(1, 5)])
    assert sum("TTFT, ms" in line for line in lines) == 2
    assert all(any(f"host:{i}" in line for line in lines) for i in range(1, 5))


def test_a_server_that_is_down_is_named_with_the_reason_and_has_dashes() -> None:
    servers = [watched("[::1]:80", None), watched("b:1", STOCK)]
    assert any(line.startswith("[::1]:80: no answer yet, for 0 s") for line in drawn(servers))
    assert figures(servers)["running + waiting"] == ["-", "0 + 0"]


def test_once_prints_one_view_of_two_scrapes(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(recorded("sarathi_2")) as shows:
        code, out, _ = output(capsys, "top", "--interval", "0.01", "--once", shows.name, "[::1]:1")
    assert code == 0
    assert "0 + 0" in out or "4 + 0" in out
    assert "[::1]:1: " in out
    assert "\x1b" not in out


def test_once_fails_if_no_server_answers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "top", "--interval", "0.01", "--once", "127.0.0.1:1")
    assert code == 1
    assert "127.0.0.1:1: Connection refused" in out


def test_a_wrong_url_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "top", "localhost:8000", "localhost:http")
    assert code == 2
    assert "server 'localhost:http' must be HOST:PORT" in err


def test_an_interval_of_0_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["top", "--interval", "0", "localhost"])


def test_neither_vllm_nor_torch_is_loaded() -> None:
    program = (
        "import sys; from vllm_sarathi.cli.main import main\n"
        "main(['top', '--once', '--interval', '0.01', '127.0.0.1:1'])\n"
        "sys.exit(bool({'vllm', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_without_rich_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['rich'] = None; from vllm_sarathi.cli.main import main\n"
        "sys.exit(main(['top', 'localhost']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs rich: pip install 'vllm-sarathi[top]'" in done.stderr


LEAVE: dict[str, tuple[Callable[[int, int], object], int]] = {
    "q": (lambda pid, terminal: os.write(terminal, b"q"), 0),
    "Ctrl-C": (lambda pid, terminal: os.kill(pid, signal.SIGINT), 130),
    "SIGTERM": (lambda pid, terminal: os.kill(pid, signal.SIGTERM), 130),
}


@pytest.mark.parametrize(("leave", "code"), LEAVE.values(), ids=LEAVE)
def test_a_user_leaves_the_terminal_as_it_was(
    leave: Callable[[int, int], object], code: int
) -> None:
    terminal, inner = pty.openpty()
    program = (
        # A shell's background jobs begin with interrupts ignored.
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('vllm_sarathi.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, "top", "127.0.0.1:1"]
    with os.fdopen(inner, "r+b", buffering=0) as end:
        before = termios.tcgetattr(end)
        process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end)
        seen = b""
        while b"Connection refused" not in seen:
            seen += os.read(terminal, 4096)
        leave(process.pid, terminal)
        while b"\x1b[?1049l" not in seen:  # back from the alternate screen
            seen += os.read(terminal, 4096)
        assert process.wait(60) == code
        assert b"Traceback" not in seen
        assert termios.tcgetattr(end) == before
    os.close(terminal)
