"""Every attribute and signature of vLLM that the package touches.

When a new vLLM breaks one of them, this names it before a user meets it.
"""

import inspect
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.request_queue import (
    FCFSRequestQueue,
    PriorityRequestQueue,
    SchedulingPolicy,
)
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.kv_cache_interface import FullAttentionSpec

from tests.support.engineless import Engine

SCHEDULER_ATTRIBUTES = {
    "running": list,
    "current_step": int,
    "max_num_scheduled_tokens": int,
    "max_num_running_reqs": int,
    "num_waiting_for_streaming_input": int,
    "num_lookahead_tokens": int,
    "num_spec_tokens": int,
    "use_v2_model_runner": bool,
    "max_num_encoder_input_tokens": int,
    "need_mamba_block_aligned_split": bool,
    "block_size": int,
    "log_stats": bool,
    "policy": SchedulingPolicy,
    "parallel_config": object,
    "vllm_config": object,
    "scheduler_config": object,
    "cache_config": object,
    "kv_cache_manager": object,
    "kv_cache_config": object,
    "lora_config": object,
}
REQUEST_ATTRIBUTES = (
    "request_id",
    "num_tokens",
    "is_prefill_chunk",
    "num_computed_tokens",
    "num_output_placeholders",
    "num_tokens_with_spec",
    "num_prompt_tokens",
    "max_tokens",
    "next_decode_eligible_step",
    "arrival_time",
    "num_output_tokens",
    "block_hashes",
    "skip_reading_prefix_cache",
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Scheduler)


@pytest.mark.parametrize("name", SCHEDULER_ATTRIBUTES)
def test_the_scheduler_has(engine: Engine, name: str) -> None:
    assert isinstance(getattr(engine.scheduler, name), SCHEDULER_ATTRIBUTES[name])


def test_requests_can_be_counted(engine: Engine) -> None:
    running, waiting = engine.scheduler.get_request_counts()
    assert engine.scheduler.has_unfinished_requests() is bool(running + waiting)
    assert SchedulingPolicy.PRIORITY is not SchedulingPolicy.FCFS


def test_a_waiting_queue_can_be_peeked_at(engine: Engine) -> None:
    assert isinstance(engine.scheduler.waiting, FCFSRequestQueue)
    assert callable(PriorityRequestQueue.peek_request)
    queues = ("kv_holding_waiting", "skipped_waiting")
    assert any(hasattr(engine.scheduler, name) for name in queues)


@pytest.mark.parametrize("name", REQUEST_ATTRIBUTES)
def test_a_request_has(engine: Engine, name: str) -> None:
    assert hasattr(engine.add(f"for-{name}", 5), name)


@pytest.mark.parametrize("name", ["max_num_batched_tokens", "enable_chunked_prefill"])
def test_the_scheduler_configuration_has(engine: Engine, name: str) -> None:
    config = engine.scheduler.scheduler_config
    assert hasattr(config, name)
    assert hasattr(config, "disable_chunked_mm_input")
    assert hasattr(config, "async_scheduling")
    assert isinstance(config.long_prefill_token_threshold, int)


def test_the_other_configurations_have_what_metrics_and_budgets_need(engine: Engine) -> None:
    config = engine.scheduler.vllm_config
    assert isinstance(config.additional_config, dict)
    assert isinstance(config.parallel_config.data_parallel_index, int)
    assert isinstance(config.parallel_config.pipeline_parallel_size, int)
    assert config.model_config.served_model_name
    assert isinstance(config.cache_config.block_size, int)
    assert len(engine.scheduler.kv_cache_config.kv_cache_groups) == 1


def test_free_kv_blocks_can_be_counted(engine: Engine) -> None:
    assert engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() > 0


def test_a_cached_block_can_be_looked_up_by_its_hash(engine: Engine) -> None:
    pool = engine.scheduler.kv_cache_manager.block_pool
    assert list(inspect.signature(pool.get_cached_block).parameters) == [
        "block_hash",
        "kv_cache_group_ids",
    ]
    assert pool.blocks[0].ref_cnt >= 0
    assert pool.hash_block_size == engine.scheduler.block_size
    assert engine.scheduler.kv_cache_manager.enable_caching in (True, False)


def test_a_cache_that_holds_every_token_is_known_by_its_class(engine: Engine) -> None:
    (group,) = engine.scheduler.kv_cache_config.kv_cache_groups
    assert isinstance(group.kv_cache_spec, FullAttentionSpec)


@pytest.mark.parametrize("scheduler_class", [Scheduler, AsyncScheduler])
def test_schedule_takes_no_argument_that_must_be_given(scheduler_class: type) -> None:
    parameters = list(inspect.signature(scheduler_class.schedule).parameters.values())[1:]
    assert all(parameter.default is not parameter.empty for parameter in parameters)
    updated = list(inspect.signature(scheduler_class.update_from_output).parameters)
    assert updated[:2] == ["self", "scheduler_output"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (SchedulerOutput, "num_scheduled_tokens"),
        (SchedulerOutput, "total_num_scheduled_tokens"),
        (SchedulerOutput, "scheduled_new_reqs"),
        (SchedulerOutput, "scheduled_cached_reqs"),
        (SchedulerOutput, "finished_req_ids"),
        (SchedulerOutput, "preempted_req_ids"),
        (CachedRequestData, "resumed_req_ids"),
        (EngineArgs, "scheduler_cls"),
        (EngineArgs, "async_scheduling"),
        (EngineArgs, "additional_config"),
    ],
)
def test_the_dataclass_has_the_field(owner: Any, name: str) -> None:
    assert name in owner.__dataclass_fields__


@pytest.mark.parametrize("name", ["request_id", "new_token_ids", "finish_reason"])
def test_an_engines_answer_has(name: str) -> None:
    assert name in EngineCoreOutput.__struct_fields__


def test_engine_arguments_have_the_methods_that_the_plugin_wraps() -> None:
    assert list(inspect.signature(EngineArgs.add_cli_args).parameters) == ["parser"]
    assert list(inspect.signature(EngineArgs.from_cli_args).parameters) == ["args"]
    assert "create_engine_config" in vars(EngineArgs)
    assert "from_cli_args" not in vars(AsyncEngineArgs)
    assert "create_engine_config" not in vars(AsyncEngineArgs)


def test_the_front_end_has_what_checks_of_requests_wrap() -> None:
    names = list(inspect.signature(InputProcessor.process_inputs).parameters)
    assert names[:4] == ["self", "request_id", "prompt", "params"]
    assert "extra_args" in inspect.signature(SamplingParams.from_optional).parameters
    error = VLLMValidationError("why", parameter="field", value="given")
    assert (error.parameter, error.value) == ("field", "given")


def test_every_generating_endpoint_makes_its_parameters_where_they_are_checked() -> None:
    for request in (ChatCompletionRequest, CompletionRequest, ResponsesRequest):
        assert "vllm_xargs" in request.model_fields
        source = inspect.getsource(request.to_sampling_params)
        assert "SamplingParams.from_optional(" in source
        assert "self.vllm_xargs" in source
