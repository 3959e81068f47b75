"""Apply the patches of vLLM to each version that they name, and run their tests.

Those are this project's in tests/patches, and those that the patches add to vLLM's own tests.

Usage: patches.py [VERSION ...]
"""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from upstream_tests import TEXT_MODELS, fetch
from versions import ROOT, Outcome, outcome_of, require_supported, told
from vllm_releases import CPU_BUILDS, made_once, tested_release

sys.path.append(str(ROOT))
from tests.support.patched_vllm import make_copy, patches

OWN = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_PLUGINS": "none",  # vLLM's own tests, of vLLM without this project's plugin
}


def main(versions: tuple[str, ...]) -> int:
    require_supported(versions)
    outcomes: list[Outcome] = []
    for version in versions:
        release = tested_release(version)
        outcomes.append(outcome_of(version, [release, ROOT], ["tests/patches"]))
        if files := [file for patch in patches(version) for file in patch.tests]:
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(added_tests(version, release, files, Path(folder)))
    return told(outcomes)


def added_tests(version: str, release: Path, files: list[str], folder: Path) -> Outcome:
    """Run the tests that the patches add to vLLM's, on patched copies of vLLM and its tests."""
    upstream = made_once(f"upstream-tests-{version}", version, partial(fetch, version))
    chosen = patches(version)
    make_copy(release / "vllm", folder, chosen)
    make_copy(upstream / "tests", folder, chosen)
    shutil.copy(upstream / "pytest.ini", folder)
    for model in TEXT_MODELS:
        shutil.copytree(upstream / model, folder / model)
    return outcome_of(f"{version}, vLLM's", [folder, release], files, folder, **OWN)


if __name__ == "__main__":
    raise SystemExit(main(tuple(sys.argv[1:]) or tuple(CPU_BUILDS)))
