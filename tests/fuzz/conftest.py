"""Says how much a campaign ran."""

import pytest

from tests.support.invariants import SEEN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the checked steps did."""
    if SEEN:
        did = ", ".join(f"{num:,} {what}" for what, num in SEEN.items())
        terminalreporter.write_line(f"fuzzing: {did}")
