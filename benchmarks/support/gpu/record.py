"""What was measured so far: one JSON file, written after each load."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support.server import CAUSE

Figures = dict[str, Any]


class Record:
    """Results by key "part, arm, load", those of earlier calls included.

    Args:
        path: the file.
        setup: what the results are of; a file of another set-up is refused.
        provenance: of this call.

    Raises:
        ValueError: the file holds results of another set-up.
    """

    def __init__(self, path: Path, setup: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        self.path = path
        self.setup = json.loads(json.dumps(setup))
        found = json.loads(path.read_text()) if path.exists() else {}
        for name, value in self.setup.items():
            if found and (before := found["setup"].get(name)) != value:
                raise ValueError(
                    f"--output {path.name!r} holds results with {name}={before!r}, not {value!r}; "
                    "allowed is a file of the same set-up, or a new one"
                )
        self.calls: list[Mapping[str, Any]] = [*found.get("calls", ()), provenance]
        self.results: dict[str, Figures] = found.get("results", {})
        self.failures: dict[str, str] = found.get("failures", {})

    def __contains__(self, key: str) -> bool:
        return key in self.results

    def get(self, key: str) -> Figures:
        """A result that another load needs.

        Raises:
            ValueError: there is none.
        """
        if key not in self.results:
            raise ValueError(f"needs the result {key!r}, which failed or was not asked for")
        return self.results[key]

    def of(self, *parts: str) -> Iterator[tuple[list[str], Figures]]:
        """Results whose key begins with these parts: the rest of each key, and its figures."""
        for key, figures in self.results.items():
            words = key.split(", ")
            if words[: len(parts)] == list(parts):
                yield words[len(parts) :], figures

    def add(self, key: str, figures: Figures) -> None:
        """Keep a result."""
        self.retry(key)
        self.results[key] = {**figures, "call": len(self.calls) - 1}
        self._write()

    def fail(self, key: str, error: BaseException) -> None:
        """Keep why there is no result. The next call tries again."""
        self.failures[key] = without_places(f"{type(error).__name__}: {error}")
        self._write()

    def retry(self, key: str) -> None:
        """Forget a failure."""
        self.failures.pop(key, None)

    def _write(self) -> None:
        """Replace the file as a whole: an interrupt leaves the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = {
            "setup": self.setup,
            "calls": self.calls,
            "failures": self.failures,
            "results": self.results,
        }
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(raw) + "\n")
        os.replace(partial, self.path)


def gist(failure: str) -> str:
    """What a failure comes to: the first error that a server's log names, or the failure itself."""
    first, *others = failure.splitlines()
    return next((line.strip() for line in others if CAUSE.search(line)), first)


def without_places(text: str) -> str:
    """Text without folders and addresses of the machine."""
    text = re.sub(r"\b\d{1,3}(\.\d{1,3}){3}\b", "ADDRESS", text)
    return re.sub(r"(?<![\w/])(?:/[\w.@+~-]+)+/", "", text)
