"""Refuses wrong objectives in the process that serves clients, before the engine core.

Every request, online and offline, passes ``InputProcessor.process_inputs``. Over
HTTP it is checked earlier too, where its sampling parameters are made: by then a
stream has not begun, so that a wrong objective is HTTP 400 there as well.
"""

import functools
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.input_processor import InputProcessor

from vllm_sarathi.config import SETTINGS_KEY, SarathiConfig
from vllm_sarathi.front_end.middleware import CURRENT
from vllm_sarathi.objectives import ObjectiveError, ObjectivesReader
from vllm_sarathi.scheduler_choice import is_ours


class InvalidObjectiveError(VLLMValidationError, ValueError):
    """An objective that is not allowed: HTTP 400 in vLLM's shape, ``ValueError`` offline."""


@functools.cache
def install() -> None:
    """Wrap the two methods. Idempotent; without our scheduler they do what they did."""
    InputProcessor.process_inputs = _with_check(InputProcessor.process_inputs)
    SamplingParams.from_optional = staticmethod(_with_headers(SamplingParams.from_optional))


def _with_check(process_inputs: Any) -> Any:
    @functools.wraps(process_inputs)
    def wrapper(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kw: Any) -> Any:
        reader = _reader_of(self)
        if reader is not None:
            _refuse(reader.read, getattr(params, "extra_args", None))
        return process_inputs(self, request_id, prompt, params, *args, **kw)

    return wrapper


def _with_headers(from_optional: Any) -> Any:
    @functools.wraps(from_optional)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        http = CURRENT.get()
        if http is not None:
            kwargs["extra_args"] = _refuse(http.admit, kwargs.get("extra_args"))
        return from_optional(*args, **kwargs)

    return wrapper


def _reader_of(processor: Any) -> ObjectivesReader | None:
    """The reader under the settings of a processor's engine, made once."""
    if not hasattr(processor, "_sarathi_reader"):
        config = processor.vllm_config
        processor._sarathi_reader = (
            ObjectivesReader(SarathiConfig.of_engine(config))
            if is_ours(
                config.scheduler_config.scheduler_cls, config.additional_config.get(SETTINGS_KEY)
            )
            else None
        )
    reader: ObjectivesReader | None = processor._sarathi_reader
    return reader


def _refuse(check: Any, extra_args: Any) -> Any:
    """Run a check and tell its error as vLLM tells its own."""
    try:
        return check(extra_args)
    except ObjectiveError as error:
        raise InvalidObjectiveError(  # type: ignore[call-arg]  # mypy does not see vLLM's base
            str(error), parameter=error.field, value=error.value
        ) from None
