"""A scheduler of another package has a name, once it is asked for."""

from pathlib import Path
from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.scheduler_loop import model_folder

ENTRY_POINTS = """\
[vllm.scheduler_plugins]
decode-maximal = tests.patches.exercises.scheduler_argument:decode_maximal
broken = nothing.here:either
"""


def decode_maximal(config: Any) -> str:
    """What the entry point names."""
    assert config.async_scheduling is not None
    return "tests.patches.small_policies.DecodeMaximal"


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "small_policies-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: small-policies\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def scheduler_class(**arguments: Any) -> type:
    config = EngineArgs(
        model=model_folder(), skip_tokenizer_init=True, **arguments
    ).create_engine_config()
    found: type = config.scheduler_config.get_scheduler_cls()
    return found


def test_installing_a_plugin_activates_nothing() -> None:
    assert scheduler_class() in (Scheduler, AsyncScheduler)


def test_a_plugin_is_chosen_by_name_and_no_other_is_loaded() -> None:
    assert scheduler_class(scheduler="decode-maximal").__name__ == "DecodeMaximal"


def test_a_wrong_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'decode-minimal'.*broken, decode-maximal"):
        scheduler_class(scheduler="decode-minimal")


def test_a_name_and_a_class_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="mutually exclusive"):
        scheduler_class(scheduler="decode-maximal", scheduler_cls="vllm_sarathi.SarathiScheduler")
