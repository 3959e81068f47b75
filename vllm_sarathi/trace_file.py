"""A file that gets a JSON line for each step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from vllm.logger import init_logger

logger = init_logger(__name__)


class TraceFile:
    """Appends lines. A disk that is full ends the trace, not the engine.

    Args:
        path: the file.

    Raises:
        ValueError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: TextIO | None = path.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"sarathi setting trace={str(path)!r} cannot be written: {error}; "
                "allowed is a file in a folder that exists"
            ) from error

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            logger.warning("sarathi trace ends: %s", error)
            self._file = None
