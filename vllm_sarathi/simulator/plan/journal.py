"""Outcomes of runs that are done, kept in a file so that a plan can go on where it ended."""

import json
from pathlib import Path

from vllm_sarathi.simulator.plan.trial import Outcome, Trial


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
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--resume {str(path)!r} cannot be used: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                self._outcomes[entry["trial"]] = entry["outcome"]
            except (ValueError, TypeError, KeyError) as error:
                if number == len(lines):
                    break  # the last run was cut off while it was written
                raise ValueError(
                    f"--resume {str(path)!r} line {number} is not of a plan: {error!r}"
                ) from error

    def __len__(self) -> int:
        return len(self._outcomes)

    def outcome(self, trial: Trial) -> Outcome | None:
        """What a trial came to, if it ran before."""
        return self._outcomes.get(trial.key)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Keep what a trial came to."""
        self._outcomes[trial.key] = outcome
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"trial": trial.key, "outcome": outcome}) + "\n")
