"""Patches of vLLM say what they are for, apply together, and do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patched_vllm import FOLDER, HEADINGS, Patch, installed_release, patches

EXERCISES = Path(__file__).parent / "exercises"
"""Tests of a patched vLLM, named after its patches; pytest takes them only if it is given them."""
README = (FOLDER / "README.md").read_text()

for_every_patch = pytest.mark.parametrize("patch", patches(), ids=lambda patch: patch.file.stem)


@for_every_patch
def test_a_patch_says_why_and_when_to_remove_it(patch: Patch) -> None:
    assert patch.title
    assert tuple(patch.said) == HEADINGS
    assert all(patch.said.values())
    assert patch.said["Apply"].endswith(patch.file.name)


@for_every_patch
def test_the_readme_lists_a_patch_with_its_versions(patch: Patch) -> None:
    (row,) = [line for line in README.splitlines() if f"({patch.file.name})" in line]
    assert f"| {patch.said['Versions']} |" in row


@for_every_patch
def test_new_files_carry_vllms_licence_header(patch: Patch) -> None:
    added = patch.file.read_text().split("\nnew file mode ")[1:]
    for file in added:
        assert re.search(r"^@@ -0,0 .*\n\+# SPDX-License-Identifier: Apache-2\.0$", file, re.M)


@for_every_patch
def test_a_patch_brings_tests_unless_vllm_has_mended_it(patch: Patch) -> None:
    assert patch.tests or patch.said["Upstream"].startswith("fixed in")


def test_patches_apply_together_and_work(patched_vllm: Path) -> None:
    names = [patch.name.replace("-", "_") for patch in patches(installed_release())]
    files = [file for name in names if (file := EXERCISES / f"{name}.py").exists()]
    if not files:
        pytest.skip(f"no patch is for vLLM {installed_release()}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *files,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(patched_vllm), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
