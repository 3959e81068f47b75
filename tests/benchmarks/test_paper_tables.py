"""The page about the papers says of each section what it was run with, where that is known."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.papers_experiments import ORCA_SCHEDULER, PREFILL_FIRST
from support.papers_text import render

from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.scheduler_factory import scheduler_class

FIGURES = Path(__file__).parents[2] / "benchmarks" / "results" / "paper_tables.json"


@pytest.fixture
def figures() -> dict[str, Any]:
    """What was measured, without what it was run with, as old files have it."""
    found = json.loads(FIGURES.read_text())
    return {name: found[name] for name in ("pipeline", "pd", "capacity")}


def test_a_section_kept_from_an_old_file_names_no_parameters(figures: dict[str, Any]) -> None:
    text = render(figures)
    assert "num seeds" not in text
    assert "commit" not in text


def test_each_section_names_its_own_parameters(figures: dict[str, Any]) -> None:
    figures["origins"] = {
        name: {
            "provenance": {"command": f"python --only {name}", "commit": name[::-1]},
            "parameters": {"num_requests": num},
        }
        for name, num in (("pipeline", 1000), ("capacity", 300))
    }
    text = render(figures)
    assert "num requests 1000, `python --only pipeline`, commit enilepip." in text
    assert "num requests 300, `python --only capacity`, commit yticapac." in text


@pytest.mark.parametrize("path", [PREFILL_FIRST, ORCA_SCHEDULER])
def test_the_papers_baselines_are_found_by_their_paths(path: str) -> None:
    found = scheduler_class(EngineSettings(path, async_scheduling=False))
    assert f"{found.__module__}.{found.__name__}" == path
