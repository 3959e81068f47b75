"""Run vLLM's own scheduler tests on vLLM's schedulers and on ours, and compare.

What passes on vLLM's schedulers must pass on ours, except what
``tests/upstream/expected_failures.toml`` lists. What fails on vLLM's as well is no evidence:
it wants an accelerator, a package or a model that is not there.

The tests are in vLLM's source distribution, which is fetched once.

Usage: upstream_tests.py [PRESET ...]
"""

import json
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from transformers import OPTConfig
from vllm_releases import made_once, unpack

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "upstream"
PRESETS = ("observe", "slo")
TESTS = ("tests/v1/core", "tests/v1/kv_connector/unit")
TEXT_MODELS = ("facebook/opt-125m", "facebook/opt-350m", "Qwen/Qwen2.5-VL-3B-Instruct")
"""Models of tests without images: any configuration of a text model will do."""

Outcomes = Mapping[str, str]
"""How each test ended: "passed", "skipped", or why it failed."""


def main(presets: tuple[str, ...]) -> int:
    release = version("vllm").partition("+")[0]
    folder = made_once(f"upstream-tests-{release}", release, partial(fetch, release))
    files = files_that_schedule(folder)
    print(f"==> {len(files)} test files of vLLM {release} on its own schedulers", flush=True)
    stock = run(folder, files, "stock", None)
    evidence = {test for test, outcome in stock.items() if outcome == "passed"}
    print(f"{len(evidence)} of {len(stock)} tests pass", flush=True)
    num_wrong = 0
    for preset in presets:
        print(f'==> the same on ours, preset "{preset}"', flush=True)
        ours = run(folder, files, preset, {"preset": preset})
        num_wrong += compare(evidence, ours, expected_failures(preset))
    return int(num_wrong > 0)


def fetch(release: str, folder: Path) -> None:
    """Make a folder in which vLLM's scheduler tests run without a model hub."""
    unpack(release, "tests", folder)
    (folder / "tests" / "conftest.py").unlink()  # it imports what only a GPU build has
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 600\n")
    for model in TEXT_MODELS:
        OPTConfig(architectures=["OPTForCausalLM"]).save_pretrained(folder / model)


def files_that_schedule(folder: Path) -> list[str]:
    """The test files that call a scheduler's ``schedule()``."""
    return sorted(
        str(file.relative_to(folder))
        for tests in TESTS
        for file in (folder / tests).rglob("test_*.py")
        if ".schedule(" in file.read_text()
    )


def run(folder: Path, files: list[str], arm: str, settings: Mapping[str, str] | None) -> Outcomes:
    """Run tests on vLLM's schedulers, or on ours where there are settings."""
    phases, log = folder / f"{arm}.jsonl", folder / f"{arm}.log"
    phases.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(ROOT)]),
        "UPSTREAM_OUTCOMES": str(phases),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    if settings is not None:
        environment["UPSTREAM_SETTINGS"] = json.dumps(settings)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "plugin", "-p", "no:cacheprovider"),
        *("-W", "ignore", "--tb=native", "--continue-on-collection-errors", *files),
    ]
    with log.open("w") as file:
        subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file)
    print(f"log: {log}", flush=True)
    return outcomes(phases)


def outcomes(phases: Path) -> Outcomes:
    """How each test ended, from how its set-up, its call and its teardown ended."""
    ended = defaultdict[str, list[dict[str, str]]](list)
    for line in phases.read_text().splitlines():
        phase = json.loads(line)
        ended[phase["test"]].append(phase)
    return {test: outcome(parts) for test, parts in ended.items()}


def outcome(phases: list[dict[str, str]]) -> str:
    for phase in phases:
        if phase["outcome"] == "failed":
            return phase["message"].partition("\n")[0] or "failed"
    if phases[-1]["when"] != "teardown":
        return "it did not end"
    return next((p["outcome"] for p in phases if p["outcome"] != "passed"), "passed")


def expected_failures(preset: str) -> set[str]:
    listed = tomllib.loads((PLUGIN / "expected_failures.toml").read_text())
    return {test for entry in listed.get(preset, ()) for test in entry["tests"]}


def compare(evidence: set[str], ours: Outcomes, expected: set[str]) -> int:
    """Print where ours differ from what is expected of them, and return in how many tests."""
    failures = {test for test in evidence if ours.get(test) != "passed"}
    unexpected, stale = failures - expected, expected - failures
    for test in sorted(unexpected):
        print(f"FAILED {test}: {ours.get(test, 'it did not end')}")
    for test in sorted(stale):
        print(f"LISTED {test}, which passes, or fails on vLLM's schedulers as well")
    print(
        f"{len(evidence) - len(failures)} of the {len(evidence)} pass, "
        f"{len(failures & expected)} fail as listed, {len(unexpected)} fail, "
        f"{len(stale)} are listed in vain",
        flush=True,
    )
    return len(unexpected) + len(stale)


if __name__ == "__main__":
    raise SystemExit(main(tuple(sys.argv[1:]) or PRESETS))
