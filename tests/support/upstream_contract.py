"""What the package relies on in vLLM: attributes of objects, and functions by what they do.

Tests hold the installed vLLM against it; ``.ci/compare_vllm.py`` compares two versions by it.
"""

from types import FunctionType, MethodType

from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import CachedRequestData
from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy
from vllm.v1.engine import EngineCoreEventType, FinishReason
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import RequestStatus

from vllm_sarathi.scheduler.vllm_versions import FEATURES

CONTRACT: dict[str, dict[str, type | tuple[type, ...]]] = {
    "Scheduler": {
        "running": list,
        "waiting": RequestQueue,
        "requests": dict,
        "current_step": int,
        "max_num_scheduled_tokens": int,
        "max_num_running_reqs": int,
        "max_model_len": int,
        "num_waiting_for_streaming_input": int,
        "num_lookahead_tokens": int,
        "num_spec_tokens": int,
        "use_v2_model_runner": bool,
        "max_num_encoder_input_tokens": int,
        "need_mamba_block_aligned_split": bool,
        "block_size": int,
        "log_stats": bool,
        "is_encoder_decoder": bool,
        "policy": SchedulingPolicy,
        "parallel_config": object,
        "vllm_config": object,
        "scheduler_config": object,
        "cache_config": object,
        "kv_cache_manager": object,
        "kv_cache_config": object,
        "lora_config": object,
        "structured_output_manager": object,
        "schedule": MethodType,
        "update_from_output": MethodType,
        "add_request": MethodType,
        "finish_requests": MethodType,
        "has_requests": MethodType,
        "has_unfinished_requests": MethodType,
        "get_request_counts": MethodType,
        "shutdown": MethodType,
    },
    "Request": {
        "request_id": str,
        "num_tokens": int,
        "is_prefill_chunk": bool,
        "num_computed_tokens": int,
        "num_output_placeholders": int,
        "num_tokens_with_spec": int,
        "num_prompt_tokens": int,
        "max_tokens": int,
        "next_decode_eligible_step": int,
        "arrival_time": float,
        "priority": int,
        "sampling_params": SamplingParams,
        "num_output_tokens": int,
        "num_preemptions": int,
        "block_hashes": list,
        "skip_reading_prefix_cache": bool,
        "status": RequestStatus,
        "client_index": int,
        "events": list,
        "streaming_queue": type(None),
        "trace_headers": type(None),
        "record_event": MethodType,
        "take_events": MethodType,
        "_output_token_ids": list,
        "_all_token_ids": list,
        "_block_hasher": object,
        "update_block_hashes": MethodType,
    },
    "SchedulerOutput": {
        "num_scheduled_tokens": dict,
        "total_num_scheduled_tokens": int,
        "scheduled_new_reqs": list,
        "scheduled_cached_reqs": CachedRequestData,
        "finished_req_ids": set,
        "preempted_req_ids": (set, type(None)),
    },
    "CachedRequestData": {
        "req_ids": list,
        "resumed_req_ids": set,
        "make_empty": MethodType,
    },
    "KVCacheManager": {
        "block_pool": object,
        "coordinator": object,
        "enable_caching": bool,
        "max_model_len": int,
        "usage": float,
        "empty_kv_cache_blocks": object,
        "allocate_slots": MethodType,
        "cache_blocks": MethodType,
    },
    "BlockPool": {
        "hash_block_size": int,
        "get_num_free_blocks": MethodType,
        "get_cached_block": MethodType,
    },
    "KVCacheBlock": {"ref_cnt": int},
    "KVCacheCoordinator": {"single_type_managers": tuple},
    "FullAttentionManager": {
        "block_size": int,
        "req_to_blocks": dict,
        "num_cached_block": dict,
    },
    "KVCacheConfig": {"kv_cache_groups": list, "num_blocks": int},
    "KVCacheGroupSpec": {"kv_cache_spec": FullAttentionSpec},
    "VllmConfig": {
        "additional_config": dict,
        "parallel_config": object,
        "scheduler_config": object,
        "cache_config": object,
        "model_config": object,
    },
    "SchedulerConfig": {
        "async_scheduling": bool,
        "enable_chunked_prefill": bool,
        "disable_chunked_mm_input": bool,
        "long_prefill_token_threshold": int,
        "max_num_batched_tokens": int,
    },
    "ParallelConfig": {"data_parallel_index": int, "pipeline_parallel_size": int},
    "CacheConfig": {"block_size": int, "num_gpu_blocks": int},
    "ModelConfig": {"served_model_name": (str, list), "is_encoder_decoder": bool},
    "SamplingParams": {"extra_args": (dict, type(None))},
    "RequestQueue": {"peek_request": MethodType},
    "SchedulingPolicy": {"FCFS": SchedulingPolicy, "PRIORITY": SchedulingPolicy},
    "RequestStatus": {
        "RUNNING": RequestStatus,
        "FINISHED_LENGTH_CAPPED": RequestStatus,
        "FINISHED_ERROR": RequestStatus,
    },
    "EngineCoreEventType": {"SCHEDULED": EngineCoreEventType},
    "FinishReason": {"ABORT": FinishReason, "ERROR": FinishReason},
    "EngineArgs": {"create_engine_config": FunctionType},
}
ASKED_FOR = {
    *FEATURES,
    "_make_cached_request_data",
    "_update_request_with_output",
    "cache_clear",
}
"""Names that the code asks for before it uses them: versions or schedulers may lack them."""

FUNCTIONS = {
    "Scheduler": {
        "schedule": "overridden",
        "update_from_output": "overridden",
        "add_request": "overridden",
        "_make_cached_request_data": "replaced in the simulator",
        "_reserve_prefill_lookahead": "replaced in the simulator",
        "_update_request_with_output": "replaced in the simulator",
    },
    "AsyncScheduler": {
        "schedule": "overridden",
        "_update_request_with_output": "replaced in the simulator",
    },
    "RequestQueue": {"*": "implemented"},
    "Request": {
        "has_encoder_inputs": "replaced in the simulator",
        "use_structured_output": "replaced in the simulator",
        "num_encoder_inputs": "replaced in the simulator",
        "take_events": "replaced in the simulator",
        "append_output_token_ids": "replaced in the simulator",
    },
    "KVCacheManager": {"allocate_slots": "replaced in the simulator"},
    "StructuredOutputManager": {"accept_tokens": "replaced in the simulator"},
    "EngineCore": {
        "step": "mirrored by the simulator",
        "step_with_batch_queue": "mirrored by the simulator",
    },
    "EngineArgs": {
        "add_cli_args": "wrapped",
        "from_cli_args": "wrapped",
        "create_engine_config": "wrapped",
    },
    "InputProcessor": {"process_inputs": "wrapped"},
    "SamplingParams": {"from_optional": "wrapped"},
    "AsyncLLM": {"generate": "wrapped"},
}
"""Functions of vLLM in whose place, or around which, code of ours runs: a change inside matters."""

MODULES = {
    "AsyncLLM": "vllm.v1.engine.async_llm",
    "AsyncScheduler": "vllm.v1.core.sched.async_scheduler",
    "BlockPool": "vllm.v1.core.block_pool",
    "CacheConfig": "vllm.config.cache",
    "CachedRequestData": "vllm.v1.core.sched.output",
    "EngineArgs": "vllm.engine.arg_utils",
    "EngineCore": "vllm.v1.engine.core",
    "EngineCoreEventType": "vllm.v1.engine",
    "FinishReason": "vllm.v1.engine",
    "FullAttentionManager": "vllm.v1.core.single_type_kv_cache_manager",
    "InputProcessor": "vllm.v1.engine.input_processor",
    "KVCacheBlock": "vllm.v1.core.kv_cache_utils",
    "KVCacheConfig": "vllm.v1.kv_cache_interface",
    "KVCacheCoordinator": "vllm.v1.core.kv_cache_coordinator",
    "KVCacheGroupSpec": "vllm.v1.kv_cache_interface",
    "KVCacheManager": "vllm.v1.core.kv_cache_manager",
    "ModelConfig": "vllm.config.model",
    "ParallelConfig": "vllm.config.parallel",
    "Request": "vllm.v1.request",
    "RequestQueue": "vllm.v1.core.sched.request_queue",
    "RequestStatus": "vllm.v1.request",
    "SamplingParams": "vllm.sampling_params",
    "Scheduler": "vllm.v1.core.sched.scheduler",
    "SchedulerConfig": "vllm.config.scheduler",
    "SchedulerOutput": "vllm.v1.core.sched.output",
    "SchedulingPolicy": "vllm.v1.core.sched.request_queue",
    "StructuredOutputManager": "vllm.v1.structured_output",
    "VllmConfig": "vllm.config.vllm",
}
"""Where vLLM has its classes."""
