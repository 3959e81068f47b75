"""Every attribute and signature of vLLM that the package relies on.

When a new vLLM breaks one of them, this names it before a user meets it. What the code
touches is read from the code, so that no attribute can be forgotten here.
"""

import inspect
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import envs
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import (
    FCFSRequestQueue,
    PriorityRequestQueue,
    RequestQueue,
    SchedulingPolicy,
)
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreEventType, EngineCoreOutput, FinishReason
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.kv_cache_interface import SlidingWindowSpec
from vllm.v1.request import RequestStatus

import vllm_sarathi
from tests.support.scheduler_loop import SchedulerLoop
from tests.support.upstream_attributes import touched
from tests.support.upstream_contract import ASKED_FOR, CONTRACT, FUNCTIONS, MODULES
from vllm_sarathi.scheduler.mixin import SarathiMixin

TOUCHING = ("scheduler", "simulator/engine")
"""Folders of the package that touch vLLM's scheduler."""


@pytest.fixture(scope="module")
def pieces() -> dict[str, Any]:
    """vLLM's objects, in the middle of a request."""
    loop = SchedulerLoop(Scheduler, enable_prefix_caching=True)
    request = loop.add("a", 40)
    output = loop.schedule()
    scheduler = loop.scheduler
    manager, config = scheduler.kv_cache_manager, scheduler.vllm_config
    return {
        "Scheduler": scheduler,
        "Request": request,
        "PrefillStats": request.prefill_stats,
        "SchedulerOutput": output,
        "CachedRequestData": output.scheduled_cached_reqs,
        "KVCacheManager": manager,
        "BlockPool": manager.block_pool,
        "KVCacheBlock": manager.block_pool.blocks[0],
        "KVCacheCoordinator": manager.coordinator,
        "FullAttentionManager": manager.coordinator.single_type_managers[0],
        "KVCacheConfig": scheduler.kv_cache_config,
        "KVCacheGroupSpec": scheduler.kv_cache_config.kv_cache_groups[0],
        "SlidingWindowSpec": SlidingWindowSpec(
            block_size=16, num_kv_heads=1, head_size=8, dtype=torch.float32, sliding_window=64
        ),
        "VllmConfig": config,
        "SchedulerConfig": config.scheduler_config,
        "ParallelConfig": config.parallel_config,
        "CacheConfig": config.cache_config,
        "ModelConfig": config.model_config,
        "SamplingParams": request.sampling_params,
        "RequestQueue": scheduler.waiting,
        "SchedulingPolicy": SchedulingPolicy,
        "RequestStatus": RequestStatus,
        "EngineCoreEventType": EngineCoreEventType,
        "FinishReason": FinishReason,
        "EngineArgs": EngineArgs,
    }


def test_the_contract_names_every_attribute_of_vllm_that_the_code_touches() -> None:
    package = Path(vllm_sarathi.__file__).parent
    files = [file for folder in TOUCHING for file in sorted((package / folder).rglob("*.py"))]
    named = {name for attributes in CONTRACT.values() for name in attributes}
    missing = {name: file for name, file in touched(files).items() if name not in named | ASKED_FOR}
    assert not missing, f"touched, and not in the contract: {missing}"


@pytest.mark.parametrize("owner", sorted({*CONTRACT, *FUNCTIONS}))
def test_classes_and_functions_are_found_where_two_versions_are_compared(owner: str) -> None:
    found = getattr(import_module(MODULES[owner]), owner)
    functions = FUNCTIONS.get(owner, {}).keys() - ASKED_FOR - {"*", "num_encoder_inputs"}
    assert all(hasattr(found, name) for name in functions)


def test_what_is_overridden_is_what_two_versions_are_compared_by() -> None:
    ours = {name for name in vars(SarathiMixin) if not name.startswith("__")}
    assert {name for name in ours if hasattr(Scheduler, name)} == {
        name for name, use in FUNCTIONS["Scheduler"].items() if use == "overridden"
    }


def test_what_the_code_touches_is_found_however_it_is_reached(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        """
from vllm.v1.core.sched.request_queue import SchedulingPolicy
class Holder:
    held: Any
    ours: int
def second(scheduler: Any) -> Any:
    name = "by_name" if hasattr(scheduler, "asked_for") else "or_by_other"
    return getattr(scheduler, name)
def read(scheduler: Any, count: int, holder: Holder) -> int:
    pool, number = scheduler.first.deep, count
    for request in sorted(pool.looped, key=lambda each: each.in_lambda):
        request.in_loop = number.real_part
    again: Any = holder
    return sum(r.in_comprehension for r in second(scheduler)) + again.annotated + holder.ours
def hold(holder: Holder) -> None:
    holder.held.through_field.append(SchedulingPolicy.IMPORTED)
"""
    )
    assert set(touched([file])) == {
        "by_name",
        "asked_for",
        "or_by_other",
        "first",
        "deep",
        "looped",
        "in_lambda",
        "in_loop",
        "in_comprehension",
        "annotated",
        "through_field",
        "IMPORTED",
    }


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner in CONTRACT for name in CONTRACT[owner]]
)
def test_vllm_has(pieces: dict[str, Any], owner: str, name: str) -> None:
    assert isinstance(getattr(pieces[owner], name), CONTRACT[owner][name])


@cache
def schedule_source() -> str:
    """vLLM's ``schedule()``."""
    return inspect.getsource(Scheduler.schedule)


def reads(name: str) -> bool:
    return re.search(rf"\b{name}\b", schedule_source()) is not None


@pytest.mark.parametrize(
    "name",
    [
        r"self\.running",
        r"self\.max_num_scheduled_tokens",
        r"self\.num_waiting_for_streaming_input",
        "long_prefill_token_threshold",
        "num_output_placeholders",
        "num_tokens_with_spec",
        "num_computed_tokens",
    ],
)
def test_vllms_schedule_reads_at_each_step(name: str) -> None:
    assert reads(name)


def test_one_limit_of_running_requests_decides_over_admission(pieces: dict[str, Any]) -> None:
    name = next(n for n in ("max_num_active_reqs", "max_num_running_reqs") if reads(rf"self\.{n}"))
    assert isinstance(getattr(pieces["Scheduler"], name), int)
    assert hasattr(pieces["Scheduler"], "max_num_active_reqs") is (name == "max_num_active_reqs")


def test_vllms_schedule_preempts_from_the_end_of_its_list() -> None:
    assert "self.running.pop()" in schedule_source()


def test_requests_are_counted_as_running_and_waiting() -> None:
    loop = SchedulerLoop(Scheduler, max_num_seqs=2)
    assert loop.scheduler.get_request_counts() == (0, 0)
    assert not loop.scheduler.has_unfinished_requests()
    for i in range(5):
        loop.add(f"r{i}", 20)
    loop.schedule()
    assert loop.scheduler.get_request_counts() == (2, 3)
    assert loop.scheduler.has_unfinished_requests()


@pytest.mark.parametrize(
    ("policy", "queue"), [("fcfs", FCFSRequestQueue), ("priority", PriorityRequestQueue)]
)
def test_a_waiting_queue_shows_its_first_request_and_keeps_it(
    policy: str, queue: type[RequestQueue]
) -> None:
    loop = SchedulerLoop(Scheduler, scheduling_policy=policy)
    first = loop.add("first", 20)
    loop.add("second", 20, priority=1)
    waiting = loop.scheduler.waiting
    assert loop.scheduler.policy == SchedulingPolicy(policy)
    assert isinstance(waiting, queue)
    assert waiting.peek_request() is first
    assert len(waiting) == 2


def test_requests_that_hold_blocks_or_were_skipped_wait_in_a_queue_of_their_own(
    pieces: dict[str, Any],
) -> None:
    scheduler = pieces["Scheduler"]
    names = [n for n in ("kv_holding_waiting", "skipped_waiting") if hasattr(scheduler, n)]
    assert names
    second = getattr(scheduler, names[0])
    assert second is not scheduler.waiting
    assert len(second) == 0
    assert hasattr(second, "__iter__")


def test_a_request_counts_its_tokens_as_a_step_runs_them() -> None:
    loop = SchedulerLoop(Scheduler, max_num_batched_tokens=32, max_num_seqs=4)
    request = loop.add("a", 40, max_tokens=3)
    seen = []
    for _ in range(4):
        loop.step()
        seen.append((request.is_prefill_chunk, request.num_computed_tokens, request.num_tokens))
    assert seen == [(True, 32, 40), (False, 40, 41), (False, 41, 42), (False, 42, 43)]
    assert (request.num_prompt_tokens, request.num_output_tokens) == (40, 3)


def test_a_token_in_flight_is_a_placeholder() -> None:
    loop = SchedulerLoop(AsyncScheduler)
    request = loop.add("a", 40, max_tokens=9)
    output = loop.schedule()
    assert request.num_output_placeholders == 1
    loop._answer(output, loop._run(output))
    assert request.num_output_placeholders == 0


def test_free_kv_blocks_are_all_but_the_null_block_and_those_held() -> None:
    loop = SchedulerLoop(Scheduler, num_blocks=100)
    pool = loop.scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == 99
    loop.add("a", 40)
    loop.schedule()
    assert pool.get_num_free_blocks() == 96


def test_a_cached_block_is_looked_up_by_its_hash(pieces: dict[str, Any]) -> None:
    pool, request = pieces["BlockPool"], pieces["Request"]
    (block,) = pool.get_cached_block(request.block_hashes[0], [0])
    assert block.ref_cnt == 1
    assert not pool.get_cached_block(request.block_hashes[0][::-1], [0])
    assert pool.hash_block_size == pieces["Scheduler"].block_size
    assert pieces["KVCacheManager"].enable_caching is True


@pytest.mark.parametrize("scheduler_class", [Scheduler, AsyncScheduler])
def test_schedule_takes_no_argument_that_must_be_given(scheduler_class: type[Scheduler]) -> None:
    parameters = list(inspect.signature(scheduler_class.schedule).parameters.values())[1:]
    assert all(parameter.default is not parameter.empty for parameter in parameters)
    assert [parameter.name for parameter in parameters][:1] in ([], ["throttle_prefills"])
    updated = list(inspect.signature(scheduler_class.update_from_output).parameters)
    assert updated[:2] == ["self", "scheduler_output"]


def test_slots_are_allocated_for_a_request_and_a_number_of_tokens(pieces: dict[str, Any]) -> None:
    parameters = list(inspect.signature(pieces["KVCacheManager"].allocate_slots).parameters)
    assert parameters[:2] == ["request", "num_new_tokens"]
    assert "num_lookahead_tokens" in parameters


@pytest.mark.parametrize("name", ["scheduler_cls", "async_scheduling", "additional_config"])
def test_engine_arguments_have_the_field(name: str) -> None:
    assert name in EngineArgs.__dataclass_fields__


@pytest.mark.parametrize(
    "name",
    ["request_id", "new_token_ids", "finish_reason", "stop_reason", "events", "trace_headers"],
)
def test_an_engines_answer_has(name: str) -> None:
    assert name in EngineCoreOutput.__struct_fields__


def test_engine_arguments_have_the_methods_that_the_plugin_wraps() -> None:
    assert list(inspect.signature(EngineArgs.add_cli_args).parameters) == ["parser"]
    assert list(inspect.signature(EngineArgs.from_cli_args).parameters) == ["args"]
    assert "create_engine_config" in vars(EngineArgs)
    assert "from_cli_args" not in vars(AsyncEngineArgs)
    assert "create_engine_config" not in vars(AsyncEngineArgs)


def test_the_cache_of_the_environment_can_be_switched() -> None:
    switches: list[Callable[[], None]] = [envs.disable_envs_cache, envs.enable_envs_cache]
    assert all(not inspect.signature(switch).parameters for switch in switches)


def test_the_front_end_has_what_checks_of_requests_wrap() -> None:
    names = list(inspect.signature(InputProcessor.process_inputs).parameters)
    assert names[:4] == ["self", "request_id", "prompt", "params"]
    assert "extra_args" in inspect.signature(SamplingParams.from_optional).parameters
    error = VLLMValidationError("why", parameter="field", value="given")
    assert (error.parameter, error.value) == ("field", "given")


def test_requests_over_http_pass_a_generator_of_the_engines_outputs() -> None:
    assert inspect.isasyncgenfunction(AsyncLLM.generate)
    names = list(inspect.signature(AsyncLLM.generate).parameters)
    assert names[:3] == ["self", "prompt", "sampling_params"]


def test_every_generating_endpoint_makes_its_parameters_where_they_are_checked() -> None:
    for request in (ChatCompletionRequest, CompletionRequest, ResponsesRequest):
        assert "vllm_xargs" in request.model_fields
        source = inspect.getsource(request.to_sampling_params)
        assert "SamplingParams.from_optional(" in source
        assert "self.vllm_xargs" in source
