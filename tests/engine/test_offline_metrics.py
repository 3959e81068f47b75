"""`LLM.get_metrics()` in the layouts without a server, with engines after one another."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.features.engines import COMMON, ENVIRONMENT
from tests.features.tiny_models import llama

pytestmark = pytest.mark.engine

PROGRAM = Path(__file__).parents[1] / "support/engine_runs.py"


@pytest.fixture(scope="module", params=["in this process", "in another, metrics shared in files"])
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """What stock vLLM shows, then an engine of ours, then another one of ours."""
    root = tmp_path_factory.mktemp("offline")
    llama(root / "llama")
    with tempfile.TemporaryDirectory() as temporary:
        environment = {**os.environ, **ENVIRONMENT, "TMPDIR": temporary}
        environment["PYTHONPATH"] = ":".join(sys.path)
        if request.param != "in this process":
            (root / "shared").mkdir()
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(root / "shared")
            environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        given = COMMON | {"model": str(root / "llama"), "served_model_name": ["tiny", "alias"]}
        command = [sys.executable, str(PROGRAM), json.dumps(given), "[null, {}, {}]"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        yield json.loads(done.stdout.splitlines()[-1])
        assert not list(Path(temporary).glob("*sarathi*"))


def named(run: dict[str, Any], prefix: str) -> list[tuple[str, dict[str, str]]]:
    series = [json.loads(one) for one in run["series"]]
    return [(name, labels) for name, labels in series if name.startswith(prefix)]


def test_ours_are_there_once_with_vllms_labels(runs: list[dict[str, Any]]) -> None:
    for run in runs[1:]:
        assert set(run["series"].values()) == {1}
        ours = named(run, "vllm_sarathi:")
        assert "vllm_sarathi:settings_info" in {name for name, _ in ours}
        assert {(one["model_name"], one["engine"]) for _, one in ours} == {("tiny", "0")}
        assert not any("pid" in one for _, one in ours)


def test_vllms_own_are_those_of_stock(runs: list[dict[str, Any]]) -> None:
    stock, *ours = ([name for name, _ in named(run, "vllm:")] for run in runs)
    assert stock
    assert all(sorted(names) == sorted(stock) for names in ours)
    assert not named(runs[0], "vllm_sarathi:")


def test_an_engine_shows_its_own_figures_up_to_its_last_answer(runs: list[dict[str, Any]]) -> None:
    for run in runs[1:]:
        assert run["counts"]["vllm_sarathi:prompt_chunks"] == 2
