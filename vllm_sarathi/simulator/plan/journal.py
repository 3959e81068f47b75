"""Outcomes of runs that are done, kept in a file so that a plan can go on where it ended."""

import json
from pathlib import Path

from vllm_sarathi.simulator.plan.trial import Outcome

_BEGINNING = '{"run": "'


class Journal:
    """A file with a line for each run. What does not belong to a plan is left alone.

    Args:
        path: the file, made where there is none; None keeps nothing beyond this plan.

    Raises:
        ValueError: it cannot be read or written, or is no journal.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._outcomes: dict[str, Outcome] = {}
        if path is None:
            return
        try:
            path.touch()
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--resume {str(path)!r} cannot be used: {error}") from error
        whole, end, rest = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self._outcomes[entry["run"]] = entry["outcome"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"--resume {str(path)!r} line {number} is not of a plan: {error!r}"
                ) from error
        if rest and not rest.startswith(_BEGINNING[: len(rest)]):
            raise ValueError(f"--resume {str(path)!r} is not of a plan: {rest[:40]!r}")
        if rest:  # the last run was cut off while it was written
            path.write_text(whole + end, encoding="utf-8")

    def outcome(self, key: str) -> Outcome | None:
        """What a run came to, by what it is of; None if it did not run before."""
        return self._outcomes.get(key)

    def add(self, key: str, outcome: Outcome) -> None:
        """Keep what a run came to; one that failed is not kept, for it may be mended."""
        if "error" in outcome:
            return
        self._outcomes[key] = outcome
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": key, "outcome": outcome}) + "\n")
