"""Leaves rows on engines out unless they are asked for, and writes the table of all."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.features.engines import ENVIRONMENT
from tests.features.table import Outcome, Outcomes, text_of
from tests.features.tiny_models import make_all

CACHE_KEY = "features/outcomes"
TABLE_VARIABLE = "FEATURES_TABLE"
"""Environment variable: the file that gets the table."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Rows on engines take minutes: only ``-m features`` or the like runs them."""
    if "features" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("features")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def outcomes(pytestconfig: pytest.Config) -> Iterator[Outcomes]:
    """What became of each row when it last ran; kept, so that rows can run one by one."""
    cache = getattr(pytestconfig, "cache", None)
    kept = cache.get(CACHE_KEY, {}) if cache else {}
    found = {feature: Outcome(*outcome) for feature, outcome in kept.items()}
    yield found
    if cache:
        cache.set(CACHE_KEY, found)
    target = os.environ.get(TABLE_VARIABLE)
    if target:
        Path(target).write_text(text_of(found))


@pytest.fixture(scope="session")
def folders(model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of small models, by the names that rows call them."""
    return make_all(tmp_path_factory.mktemp("models"), Path(model))


@pytest.fixture
def server_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Small servers, and an empty folder for their temporary files, whose name is short."""
    for name, value in ENVIRONMENT.items():
        if name != "VLLM_ENABLE_V1_MULTIPROCESSING":
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("SARATHI_METRICS_DIR", raising=False)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield monkeypatch
