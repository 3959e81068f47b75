"""Figures of many runs in one JSON file, written as they come."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.progress import track
from support.provenance import provenance

from vllm_sarathi.simulator.results.comparison import run_all

Figures = dict[str, Any]


class Keyed(Protocol):
    """What has a name in the file."""

    @property
    def key(self) -> str:
        """The name."""


Cell = TypeVar("Cell", bound=Keyed)


class Runs:
    """What a file holds and what is added to it, each run with the commit that it is of.

    Args:
        output: the file. Runs in it that are not asked for stay.
        asked: keys of the runs asked for: "case, engine, load" or "case, engine, load, seed N".
        resume: take those that the file holds for done, else measure them anew.
    """

    def __init__(self, output: Path, asked: Sequence[str], resume: bool) -> None:
        found = json.loads(output.read_text()) if output.exists() else {"runs": {}}
        self.output, self.asked = output, asked
        self.figures: dict[str, Figures] = {
            key: figures for key, figures in found["runs"].items() if resume or key not in asked
        }
        self.provenance = provenance()
        commits = {figures.get("commit") for figures in self.figures.values()}
        before = [found["provenance"], *found.get("earlier", [])] if found["runs"] else []
        self.earlier = [of for of in before if of["commit"] in commits]
        output.parent.mkdir(parents=True, exist_ok=True)

    def measure(
        self,
        function: Callable[[Cell], Figures],
        cells: Sequence[Cell],
        num_jobs: int,
        description: str = "Working...",
    ) -> None:
        """Run what the file does not hold yet, so many at a time, and keep it as it comes."""
        todo = [cell for cell in cells if cell.key not in self.figures]
        done = run_all(function, todo, num_jobs)
        for index, figures in track(done, description, total=len(todo)):
            self.add(todo[index].key, figures)

    def add(self, key: str, figures: Figures) -> None:
        """Keep a run's figures."""
        self.figures[key] = {**figures, "commit": self.provenance["commit"]}
        raw = {"provenance": self.provenance, "earlier": self.earlier, "runs": self.figures}
        whole = self.output.with_suffix(".partial")
        whole.write_text(json.dumps(raw, indent=1))
        whole.replace(self.output)  # an interruption leaves one or the other

    def by_case(self) -> dict[str, dict[str, list[Figures]]]:
        """Figures of every seed, by case and load and by engine; what was asked for first."""
        cases: dict[str, dict[str, list[Figures]]] = {}
        for key in dict.fromkeys((*self.asked, *self.figures)):
            if key in self.figures:
                case, engine, load = re.sub(r", seed \d+$", "", key).rsplit(", ", 2)
                found = cases.setdefault(f"{case}, {load}", {}).setdefault(engine, [])
                found.append(self.figures[key])
        return cases

    def write_table(self, table: str) -> None:
        """Print a table and write it beside the file, with the commits that it is of."""
        counts = Counter(figures.get("commit", "unknown") for figures in self.figures.values())
        of = ", ".join(f"{commit} ({num})" for commit, num in counts.items())
        text = f"{table}\n\nRuns by commit: {of}."
        self.output.with_suffix(".md").write_text(text + "\n")
        print(text)


def add_arguments(parser: argparse.ArgumentParser, output: Path) -> None:
    """``--output`` and ``--resume``."""
    parser.add_argument("--output", type=Path, default=output, metavar="FILE")
    parser.add_argument(
        "--resume", action="store_true", help="keep the runs that the output holds already"
    )
