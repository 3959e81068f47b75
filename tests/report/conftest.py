from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.step_log import write_log


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines into a step log."""

    def written(*lines: dict[str, Any] | str) -> Path:
        return write_log(tmp_path / "steps.jsonl", *lines)

    return written
