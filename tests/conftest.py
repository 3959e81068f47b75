"""Quiet, offline, and one place for the model that real engines serve."""

import os
import sys
from pathlib import Path

import pytest

# The benchmarks' client and server serve the tests too.
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")


@pytest.fixture(scope="session")
def model() -> str:
    """SmolLM2-135M-Instruct, which the set-up unpacks."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "vllm-sarathi" / "SmolLM2-135M-Instruct"
    assert folder.is_dir(), f"{folder} is missing: run `make setup`"
    return str(folder)
