from importlib.util import find_spec
from pathlib import Path

import pytest

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.metrics.recorder import StepRecorder
from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.top.names import Sarathi, Setting, Vllm

SUFFIXES = {"counter": "_total", "info": "_info"}


@pytest.mark.parametrize("name", Sarathi)
def test_a_metric_of_ours_is_one_that_is_recorded(name: Sarathi) -> None:
    registry = StepRecorder({}, "model", 0, [RequestObjectives()]).catalogue.registry
    assert name in {f.name + SUFFIXES.get(f.type, "") for f in registry.collect()}


@pytest.mark.parametrize("name", Vllm)
def test_a_metric_of_vllms_is_one_of_the_installed_version(name: Vllm) -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    loggers = Path(spec.origin).parent / "v1/metrics/loggers.py"
    assert f'name="{name.removesuffix("_total")}"' in loggers.read_text()


@pytest.mark.parametrize("label", Setting)
def test_a_label_of_the_settings_is_a_setting(label: Setting) -> None:
    assert label in SarathiConfig.model_fields
