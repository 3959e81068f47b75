"""What a reader needs to repeat a run."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def provenance(**more: Any) -> dict[str, Any]:
    """Date, command (absolute paths by name), commit, versions, machine and what else is given."""
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    arguments = (Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", script, *arguments]),
        "commit": commit(),
        "versions": {name: version(name) for name in ("vllm", "vllm-sarathi", "torch")},
        "python": platform.python_version(),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.platform()},
        **more,
    }


def foot(found: dict[str, Any]) -> str:
    """What stands under a picture of a run: when, with which version and by which command.

    A run of which no date is known has that of its commit.
    """
    commit_date = git("show", "-s", "--format=%cs", found["commit"].removesuffix("-dirty"))
    date, vllm = found.get("date", commit_date), found["versions"]["vllm"].partition("+")[0]
    return f"{date}, vLLM {vllm}: {found['command']}"


def commit() -> str:
    """The commit, with "-dirty" where Python files differ from it; results are not code."""
    changed = git("status", "--porcelain", "--", ":(top)*.py")
    return git("rev-parse", "HEAD") + "-dirty" * bool(changed)


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=HERE, check=False
    )
    return done.stdout.strip()


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
