"""The core decides; it does not look around."""

import subprocess
import sys
from pathlib import Path

import pytest

import vllm_sarathi

PACKAGE = Path(vllm_sarathi.__file__).parent
CORE = (
    "step",
    "config",
    "batch_builder",
    "token_budget",
    "step_time",
    "error_quantile",
    "candidates",
    "decode_wait",
    "least_squares",
    "micro_batch",
    "presets",
    "priority",
)


def test_importing_the_package_and_its_core_imports_neither_vllm_nor_torch() -> None:
    modules = ", ".join(f"vllm_sarathi.{name}" for name in CORE)
    code = f"import sys, {modules}; print({{'vllm', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", CORE)
def test_the_core_reads_no_clock_and_no_environment_and_logs_nothing(name: str) -> None:
    text = (PACKAGE / f"{name}.py").read_text()
    for word in ("import time", "from time", "import os", "environ", "logging", "print("):
        assert word not in text


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        vllm_sarathi.nothing  # noqa: B018
