"""Draws the view, once or again and again until its user leaves."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vllm_sarathi.top.rows import rows
from vllm_sarathi.top.server import WINDOW_S, Server, State
from vllm_sarathi.top.texts import UNKNOWN

NO_ANSWER = 1
_REFRESH_S = 0.5
_HOW_TO_LEAVE = Text("press q to quit", style="dim")
_LABEL_WIDTH, _CELL_WIDTH = 26, 18


def run(named: Sequence[str], interval_s: float, once: bool) -> int:
    """Watch servers.

    Args:
        named: their addresses.
        interval_s: seconds from one scrape of a server to the next.
        once: draw once, after two scrapes, as where the output is no terminal.

    Returns:
        The exit code: 1 if it was drawn once and no server answered.

    Raises:
        ValueError: names an address that is none.
    """
    servers = [Server(name) for name in named]
    console = Console()
    if once or not sys.stdout.isatty():
        for thread in [server.follow(interval_s, num_scrapes=2) for server in servers]:
            thread.join()
        console.print(draw(servers, console.width))
        return 0 if any(server.state.span for server in servers) else NO_ANSWER
    for server in servers:
        server.follow(interval_s)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to leave the terminal as it was
    with _keys() as is_done, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(_HOW_TO_LEAVE, draw(servers, console.width)), refresh=True)
            if is_done(_REFRESH_S):
                return 0


def draw(servers: Sequence[Server], width: int) -> RenderableType:
    """Who does not answer, and tables with as many servers side by side as fit."""
    seen = [(server.name, server.state) for server in servers]  # once, for threads change it
    problems = [_problem(name, state) for name, state in seen if not state.span]
    num_columns = max(1, (width - _LABEL_WIDTH) // _CELL_WIDTH)
    chunks = [seen[i : i + num_columns] for i in range(0, len(seen), num_columns)]
    legend = f"last {WINDOW_S:.0f} s; a/b/c: percentiles 50/90/99, of time left 50/10/1"
    return Group(Text(legend, style="dim"), *problems, *map(_table, chunks))


def _problem(name: str, state: State) -> Text:
    for_s = time.monotonic() - state.since_s
    return Text(f"{name}: {state.problem}, for {for_s:.0f} s", style="bold red")


def _table(seen: Sequence[tuple[str, State]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(style="cyan", width=_LABEL_WIDTH - 2, overflow="fold")
    for name, state in seen:
        style = "" if state.span else "red"
        header = Text(name, style=style, overflow="fold")  # as it is: [::1] is no markup
        table.add_column(header, width=_CELL_WIDTH - 2)
    spans = [state.span for _, state in seen]
    for row in rows([span for span in spans if span]):
        texts = (row.cell(span) if span else UNKNOWN for span in spans)
        cells = (Text(text, no_wrap=True, overflow="ellipsis") for text in texts)
        table.add_row(Text(row.label), *cells)
    return table


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds, and says whether the user leaves."""
    if not sys.stdin.isatty():
        yield _is_never
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _is_q
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_never(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def _is_q(wait_s: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    pressed = os.read(sys.stdin.fileno(), 64) if ready else b" "
    return not pressed or b"q" in pressed
