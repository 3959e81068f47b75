"""Run the tests that start no engine on each vLLM that is supported, and print a table.

Usage: versions.py [VERSION ...]
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_releases import CPU_BUILDS, tested_release

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """How the tests ended on one version."""

    version: str
    num_passed: int
    failed: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """Tests, each with the reason."""
    ended: bool
    """Whether pytest ran to its end."""


def main(versions: tuple[str, ...]) -> int:
    require_supported(versions)
    outcomes = [outcome_of(version, [tested_release(version), ROOT]) for version in versions]
    return told(outcomes)


def require_supported(versions: tuple[str, ...]) -> None:
    if unknown := set(versions) - set(CPU_BUILDS):
        raise SystemExit(
            f"VERSIONS={' '.join(sorted(unknown))}: allowed are {' '.join(CPU_BUILDS)}"
        )


def outcome_of(
    version: str,
    path: Sequence[Path],
    tests: Sequence[str] = (),
    cwd: Path = ROOT,
    **environment: str,
) -> Outcome:
    """Run tests, all of this project's by default, with folders before all else on the path."""
    print(f"==> vLLM {version}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-m", "not engine", "--tb=short"),
                *("-p", "no:cacheprovider", "--numprocesses=logical", "--maxprocesses=4"),
                *("--dist=worksteal", f"--junitxml={report}", *tests),
            ],
            cwd=cwd,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(map(str, path))},
        )
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [(c, why) for c in cases if (why := c.find("skipped")) is not None]
    return Outcome(
        version,
        len(cases) - len(failed) - len(skipped),
        tuple(name(case) for case in failed),
        tuple((name(case), why.get("message", "")) for case, why in skipped),
        done.returncode in (0, 1) and bool(cases),
    )


def told(outcomes: list[Outcome]) -> int:
    """Print the table, and return the exit status."""
    print(table(outcomes))
    return int(any(outcome.failed or not outcome.ended for outcome in outcomes))


def name(case: ET.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}"


def table(outcomes: list[Outcome]) -> str:
    """A row per version; below it, what failed, and what was skipped where and why."""
    lines = ["| vLLM | passed | failed | skipped |", "|---|---|---|---|"]
    for one in outcomes:
        failed = str(len(one.failed)) if one.ended else f"{len(one.failed)}, and pytest broke off"
        lines.append(f"| {one.version} | {one.num_passed} | {failed} | {len(one.skipped)} |")
    lines += [f"FAILED on {one.version}: {test}" for one in outcomes for test in one.failed]
    for test, why in sorted({skip for one in outcomes for skip in one.skipped}):
        versions = " ".join(one.version for one in outcomes if (test, why) in one.skipped)
        lines.append(f"skipped on {versions}: {test} ({why})")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(tuple(sys.argv[1:]) or tuple(CPU_BUILDS)))
