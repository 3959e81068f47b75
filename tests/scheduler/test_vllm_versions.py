import re
from importlib.metadata import version
from pathlib import Path
from runpy import run_path

import pytest
import vllm.exceptions
from packaging.version import Version
from vllm.v1.core.sched.scheduler import Scheduler

import vllm_sarathi
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi.scheduler.vllm_versions import FEATURES, SUPPORTED_VLLM, check_vllm_version

SUPPORTED = [f"0.{i}.0" for i in range(1000) if SUPPORTED_VLLM.contains(f"0.{i}.0")]
PACKAGE = Path(vllm_sarathi.__file__).parent


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0+cpu", "0.33.1.dev5"])
def test_a_supported_version_passes(version: str) -> None:
    check_vllm_version(version)


@pytest.mark.parametrize("version", ["0.25.1", "0.34.0", "1.0.0"])
def test_an_unsupported_version_is_named_with_those_supported(version: str) -> None:
    with pytest.raises(RuntimeError, match=rf"supports vllm .*0\.26.*vllm {version}"):
        check_vllm_version(version)


@pytest.mark.parametrize("feature", FEATURES)
def test_this_vllm_has_the_features_that_its_version_is_said_to_have(feature: str) -> None:
    scheduler = SchedulerLoop(Scheduler).scheduler
    owners = (scheduler, scheduler.structured_output_manager, vllm.exceptions)
    has = any(hasattr(owner, feature) for owner in owners)
    assert has is FEATURES[feature].contains(Version(version("vllm")).base_version)


@pytest.mark.parametrize("feature", FEATURES)
def test_supported_versions_differ_in_what_the_code_asks_for(feature: str) -> None:
    have = [release for release in SUPPORTED if FEATURES[feature].contains(release)]
    assert have, f"no supported vLLM has {feature}: the code need not use it"
    assert have != SUPPORTED, f"every supported vLLM has {feature}: the code need not ask for it"


def test_all_that_is_asked_of_versions_is_a_known_feature() -> None:
    source = (PACKAGE / "scheduler" / "vllm_versions.py").read_text()
    shims = source[source.index("def second_waiting_queue") :]
    words = re.findall(r'"(_?[a-z][a-z0-9_]+)"', shims)
    both_have = {"current_step", "max_num_running_reqs", "use_v2_model_runner"}
    assert set(words) - both_have <= set(FEATURES)


def test_every_feature_is_used() -> None:
    source = "".join(
        file.read_text().partition('"""What the code asks for')[2] or file.read_text()
        for file in PACKAGE.rglob("*.py")
    )
    assert [name for name in FEATURES if not re.search(rf"\b{name}\b", source)] == []


def test_make_versions_runs_every_version_that_is_supported() -> None:
    releases = run_path(str(PACKAGE.parent / ".ci" / "vllm_releases.py"))["CPU_BUILDS"]
    assert [Version(release).release[:2] for release in releases] == [
        Version(release).release[:2] for release in SUPPORTED
    ]
