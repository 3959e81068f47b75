"""Wrong objectives end in the front-end process, where online and offline requests pass."""

from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.input_processor import InputProcessor

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.front_end import request_checks
from vllm_sarathi.front_end.middleware import CURRENT, HttpObjectives
from vllm_sarathi.objectives import ObjectivesReader

OURS = "vllm_sarathi.AsyncSarathiScheduler"


class ReachedVllmError(Exception):
    """vLLM's own code was reached."""


def process(scheduler_cls: str | None, extra_args: dict[str, Any] | None) -> None:
    """Hand a request to vLLM's input processor, which has no model here."""
    request_checks.install()
    processor = object.__new__(InputProcessor)
    processor.vllm_config = SimpleNamespace(
        scheduler_config=SimpleNamespace(scheduler_cls=scheduler_cls), additional_config={}
    )

    def reached(*args: Any) -> None:
        raise ReachedVllmError

    processor._validate_params = reached
    params = SamplingParams(extra_args=extra_args)
    processor.process_inputs("1", {"type": "token"}, params, supported_tasks=("generate",))


def test_a_wrong_objective_is_a_value_error_before_vllm_sees_the_request() -> None:
    with pytest.raises(ValueError, match="ttft_slo_ms=-5: allowed is a number"):
        process(OURS, {"ttft_slo_ms": -5})


@pytest.mark.parametrize("extra_args", [None, {"ttft_slo_ms": 500, "qos": "batch"}, {"other": 1}])
def test_a_right_one_goes_on_to_vllm(extra_args: dict[str, Any] | None) -> None:
    with pytest.raises(ReachedVllmError):
        process(OURS, extra_args)


def test_under_vllms_own_scheduler_nothing_is_checked() -> None:
    with pytest.raises(ReachedVllmError):
        process(None, {"ttft_slo_ms": -5})


def test_installing_twice_wraps_once() -> None:
    request_checks.install()
    wrapped = InputProcessor.process_inputs
    request_checks.install()
    assert InputProcessor.process_inputs is wrapped


def test_vllm_tells_the_error_as_its_own_with_the_field_as_parameter() -> None:
    error = pytest.importorskip("vllm.entrypoints.serve.exception_handling.error_response")
    with pytest.raises(ValueError, match="tpot_slo_ms") as refused:
        process(OURS, {"tpot_slo_ms": "fast"})
    answer = error.create_error_response(refused.value).error
    assert (answer.code, answer.type, answer.param) == (
        HTTPStatus.BAD_REQUEST,
        "BadRequestError",
        "tpot_slo_ms",
    )


def test_over_http_sampling_parameters_get_the_headers_and_are_checked_before_a_stream_begins() -> (
    None
):
    request_checks.install()
    reader = ObjectivesReader(SarathiConfig())
    token = CURRENT.set(HttpObjectives(reader, {"ttft_slo_ms": 500.0}))
    try:
        assert SamplingParams.from_optional().extra_args == {"ttft_slo_ms": 500.0}
        with pytest.raises(ValueError, match="qos='gold'"):
            SamplingParams.from_optional(extra_args={"qos": "gold"})
    finally:
        CURRENT.reset(token)
    assert SamplingParams.from_optional(extra_args={"qos": "gold"}).extra_args == {"qos": "gold"}
