"""Quiet, offline, and one place for the model that real engines serve."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from vllm_sarathi.scheduler.faults import Faults

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
settings.register_profile("any machine", deadline=None)
settings.register_profile(
    "fuzz", deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck)
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
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    (installed,) = spec.submodule_search_locations
    root = tmp_path_factory.mktemp("patched")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(installed, root / "vllm", ignore=ignored, copy_function=os.symlink)
    for patch in sorted((Path(__file__).parents[1] / "patches").glob("*.patch")):
        for line in patch.read_text().splitlines():
            if line.startswith("+++ b/"):
                file = root / line.removeprefix("+++ b/")
                original = file.resolve()
                file.unlink()
                shutil.copy(original, file)
        subprocess.run(["git", "apply", patch], cwd=root, check=True)
    return root
