"""What `make versions` and `make compare` say of a vLLM."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / ".ci"))
        import compare_vllm  # type: ignore[import-not-found]
        import versions  # type: ignore[import-not-found]
    return {"compare": compare_vllm, "versions": versions}


def test_a_version_that_is_not_supported_is_refused_by_name(
    scripts: dict[str, ModuleType],
) -> None:
    with pytest.raises(SystemExit, match=r"VERSIONS=0\.1\.0: allowed are 0\.26\.0"):
        scripts["versions"].main(("0.26.0", "0.1.0"))


def test_the_table_tells_what_failed_and_what_was_skipped_where(
    scripts: dict[str, ModuleType],
) -> None:
    versions = scripts["versions"]
    skipped = (("tests.a::b", "needs 0.30"),)
    text = versions.table(
        [
            versions.Outcome("0.26.0", 10, ("tests.c::d",), skipped, True),
            versions.Outcome("0.27.1", 11, (), skipped, False),
        ]
    )
    assert "| 0.26.0 | 10 | 1 | 1 |" in text
    assert "| 0.27.1 | 11 | 0, and pytest broke off | 1 |" in text
    assert "FAILED on 0.26.0: tests.c::d" in text
    assert "skipped on 0.26.0 0.27.1: tests.a::b (needs 0.30)" in text


def test_a_run_that_never_began_is_no_success(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = scripts["versions"]
    monkeypatch.setattr(versions, "ROOT", tmp_path)  # without tests
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert not versions.outcome_of("0.26.0", [tmp_path]).ended


OLD = """
class Base:
    def inherited(self, a): return a

class Scheduler(Base):
    limit: int
    def __init__(self): self.running = []
    def schedule(self, a, b=1):
        '''Its text.'''
        return a
    def finish(self): return 1
"""
NEW = """
class Scheduler:
    limit: int
    def __init__(self): self.added = []
    def schedule(self, a, throttle=False):
        '''Another text.'''
        # a comment
        return a
    def finish(self): return 2
"""
USED = {
    "schedule": "overridden",
    "finish": "overridden",
    "inherited": "called",
}


@pytest.fixture
def told(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What is said of the change from OLD to NEW."""
    compare = scripts["compare"]
    monkeypatch.setattr(compare, "CONTRACT", {"Scheduler": ("running", "limit")})
    monkeypatch.setattr(compare, "FUNCTIONS", {"Scheduler": USED})
    monkeypatch.setattr(compare, "MODULES", {"Scheduler": "vllm.scheduler"})
    monkeypatch.setattr(compare, "ASKED_FOR", ())
    for name, text in {"old": OLD, "new": NEW}.items():
        file = tmp_path / name / "vllm" / "scheduler.py"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    was, now = (compare.read(tmp_path / name, "Scheduler") for name in ("old", "new"))
    found: list[str] = compare.changes("Scheduler", was, now)
    return found


def test_what_we_rely_on_and_is_gone_comes_first(told: list[str]) -> None:
    assert told[:2] == ["GONE: inherited", "GONE: running"]


def test_parameters_that_changed_are_told(told: list[str]) -> None:
    assert "PARAMETERS: schedule, overridden: -(b=1) +(throttle=False)" in told


def test_a_body_counts_without_comments_and_docstring(told: list[str]) -> None:
    bodies = [line for line in told if line.startswith("body")]
    assert bodies == ["body: finish, overridden: +1 -1 lines, at line 9"]


def test_new_attributes_of_a_scheduler_are_told(told: list[str]) -> None:
    assert "also new: added" in told


def test_a_comparison_without_a_version_says_what_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, ".ci/compare_vllm.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "VLLM=0.34.0" in done.stderr
