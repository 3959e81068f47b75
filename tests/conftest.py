"""Quiet, offline, and one place for the model that real engines serve."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.patched_vllm import installed_release, installed_vllm, make_copy, patches
from vllm_sarathi.scheduler.faults import Faults

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
# The same examples in each run; --hypothesis-profile=fuzz draws others, of any property.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=False,
    max_examples=2000,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _faults_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Faults, "are_raised", True)


@pytest.fixture(scope="session")
def model() -> str:
    """SmolLM2-135M-Instruct, which the set-up unpacks."""
    from support.model import DEFAULT_MODEL

    assert Path(DEFAULT_MODEL).is_dir(), f"{DEFAULT_MODEL} is missing: run `make setup`"
    return DEFAULT_MODEL


@pytest.fixture(scope="session")
def patched_vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put first on the path: vLLM as installed, with the patches of this project."""
    root = tmp_path_factory.mktemp("patched")
    make_copy(installed_vllm(), root, patches(installed_release()))
    return root
