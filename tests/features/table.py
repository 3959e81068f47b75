"""The feature matrix as text, from what became of its rows."""

from typing import NamedTuple

from vllm import __version__

from tests.features.rows import ROWS, SIDES, Row


class Outcome(NamedTuple):
    """What became of a row: ``works``, ``refused``, ``not run here`` or ``fails``, and why."""

    word: str
    detail: str = ""


Outcomes = dict[str, Outcome]

_HEAD = """# What works

`make features` writes this file. Each row ran with stock vLLM {version} and with SARATHI at the
same settings, and both gave the **same greedy tokens**. "Works" means nothing less. "Refused"
shows what the user is told. SARATHI ran twice, with settings that change every batch:

{sides}

An *engine* is a real one, on CPUs, with a small model of random weights. *Virtual time* is vLLM's
real scheduler with a made-up model. Counts show that the feature was at work, in both runs of
SARATHI.

| feature | outcome | ran on | remarks |
|---|---|---|---|
"""


def text_of(outcomes: Outcomes) -> str:
    """The whole file; a row that did not run says so."""
    sides = "\n".join(f"- {name}: `{settings}`" for name, settings in SIDES.items())
    head = _HEAD.format(version=__version__.split("+")[0], sides=sides)
    return head + "".join(_line(row, outcomes.get(row.feature)) for row in ROWS)


def _line(row: Row, outcome: Outcome | None) -> str:
    word, detail = outcome or Outcome("**did not run**")
    remarks = "; ".join(part for part in (detail, row.note) if part)
    place = "" if row.place == "not run" else row.place
    return f"| {row.feature} | {word} | {place} | {remarks.replace('|', '/')} |\n"
