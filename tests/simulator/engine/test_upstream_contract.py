"""Every part of vLLM that the simulator builds, calls or writes; shortcuts have their own file.

Each test fails where vLLM renames the part, or gives it another meaning.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from vllm import envs
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import SchedulerInterface
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.core import EngineCore, EngineCoreProc
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from tests.support.upstream import calls, parameters, reads, request, step
from vllm_sarathi.scheduler.vllm_versions import step_counters
from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.loop import model_runner_output
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine

BLOCK_SIZE = EngineSettings().block_size
KINDS = ["Scheduler", "AsyncScheduler"]


# scheduler_factory


def test_schedulers_are_built_from_these_arguments() -> None:
    assert issubclass(Scheduler, SchedulerInterface)
    assert issubclass(AsyncScheduler, Scheduler)
    wanted = {"vllm_config", "kv_cache_config", "structured_output_manager", "block_size"}
    assert wanted | {"log_stats"} <= set(parameters(Scheduler))
    required = {
        name
        for name, parameter in inspect.signature(Scheduler).parameters.items()
        if parameter.default is parameter.empty
    }
    assert required <= wanted
    assert parameters(StructuredOutputManager) == ["vllm_config"]
    assert parameters(Scheduler.shutdown) == ["self"]


def test_a_cache_of_one_full_attention_group_is_built_from_these_arguments() -> None:
    spec = {"block_size", "num_kv_heads", "head_size", "dtype"}
    assert spec <= set(parameters(FullAttentionSpec))
    assert parameters(KVCacheGroupSpec)[:2] == ["layer_names", "kv_cache_spec"]
    config = {"num_blocks", "kv_cache_tensors", "kv_cache_groups"}
    assert config <= set(KVCacheConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "skip_tokenizer_init",
        "max_model_len",
        "async_scheduling",
        "max_num_batched_tokens",
        "max_num_seqs",
        "enable_prefix_caching",
        "block_size",
        "scheduling_policy",
        "enable_chunked_prefill",
    ],
)
def test_an_engine_argument_has_the_name(name: str) -> None:
    assert name in EngineArgs.__dataclass_fields__


@pytest.mark.parametrize(
    ("asynchronous", "num_stages", "v2_model_runner", "most"),
    [(False, 1, True, 1), (True, 1, True, 2), (False, 4, True, 4), (True, 4, True, 5)],
)
def test_batches_in_flight_follow_what_is_set_after_the_configuration_is_made(
    asynchronous: bool, num_stages: int, v2_model_runner: bool, most: int
) -> None:
    engine = EngineSettings(async_scheduling=asynchronous, v2_model_runner=v2_model_runner)
    with gpu_engine(engine, num_stages, 100_000, 8192) as (scheduler, config):
        assert config.max_concurrent_batches == most
        assert scheduler.vllm_config is config


@pytest.mark.parametrize("v2", [False, True])
def test_the_environment_names_the_model_runner(build: Callable[..., Any], v2: bool) -> None:
    assert build(v2_model_runner=v2).use_v2_model_runner is v2
    assert "VLLM_USE_V2_MODEL_RUNNER" in envs.environment_variables


def test_the_cache_of_the_environment_can_be_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    envs.enable_envs_cache()
    try:
        assert hasattr(envs.__getattr__, "cache_clear")
        assert envs.VLLM_USE_V2_MODEL_RUNNER in (None, False, True)
        envs.disable_envs_cache()
        assert not hasattr(envs.__getattr__, "cache_clear")
        monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
        assert envs.VLLM_USE_V2_MODEL_RUNNER is True
    finally:
        envs.disable_envs_cache()


def test_the_number_of_kv_blocks_is_that_of_the_cache(build: Callable[..., Any]) -> None:
    scheduler = build()
    num_blocks = 100_000 // BLOCK_SIZE
    assert scheduler.cache_config.num_gpu_blocks == num_blocks
    # vLLM keeps one block to itself.
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == num_blocks - 1
    assert scheduler.block_size == BLOCK_SIZE


# requests


def test_a_request_takes_its_first_arguments_by_position() -> None:
    first = ["request_id", "prompt_token_ids", "sampling_params", "pooling_params"]
    assert parameters(Request)[:4] == first
    assert {"arrival_time", "priority", "block_hasher"} <= set(parameters(Request))
    wanted = {"max_tokens", "ignore_eos", "temperature", "extra_args"}
    assert wanted <= set(SamplingParams.__struct_fields__)


def test_equal_tokens_have_equal_block_hashes() -> None:
    one, same, other = (request(40, token=token, hashed=True) for token in (1, 1, 2))
    assert len(one.block_hashes) == 2
    assert one.block_hashes == same.block_hashes != other.block_hashes


# loop


@pytest.mark.parametrize("name", ["step", "step_with_batch_queue"])
def test_the_engine_core_has_the_loops_that_are_mirrored(name: str) -> None:
    function = getattr(EngineCore, name)
    assert calls(function, "has_requests")
    assert calls(function, "schedule")
    assert calls(function, "update_from_output")
    assert callable(EngineCoreProc.run_busy_loop)


def test_a_model_runners_answer_has_these_fields() -> None:
    fields = {"req_ids", "req_id_to_index", "sampled_token_ids"}
    assert fields <= set(ModelRunnerOutput.__dataclass_fields__)


def test_a_step_is_told_as_the_loop_reads_it(build: Callable[..., Any]) -> None:
    scheduler = build(max_num_batched_tokens=16)
    assert not scheduler.has_requests()
    scheduler.add_request(request())
    assert scheduler.has_requests()
    assert len(scheduler.waiting) == 1
    chunk = scheduler.requests["0"]
    assert step(scheduler).num_scheduled_tokens == {"0": 16}
    assert chunk.is_prefill_chunk
    assert chunk.num_computed_tokens == 16
    assert scheduler.running == [chunk]
    assert scheduler.kv_cache_manager.usage > 0
    output = scheduler.schedule()
    assert output.total_num_scheduled_tokens == 4
    assert not chunk.is_prefill_chunk
    answer = model_runner_output({"0": 4}, frozenset({"0"}))
    (group,) = scheduler.update_from_output(output, answer).values()
    (told,) = group.outputs
    assert (told.request_id, told.new_token_ids, told.finish_reason) == ("0", [0], None)
    assert {"request_id", "new_token_ids", "finish_reason"} <= set(
        EngineCoreOutput.__struct_fields__
    )


@pytest.mark.parametrize("name", ["scheduled_new_reqs", "preempted_req_ids"])
def test_a_scheduler_output_names_requests_that_started_or_were_preempted(name: str) -> None:
    assert name in SchedulerOutput.__dataclass_fields__


# stretch


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_decodes_moves_these_counters_and_no_others(
    build: Callable[..., Any], kind: str
) -> None:
    scheduler = build(kind)
    scheduler.add_request(request(max_tokens=64))
    running = scheduler.requests["0"]
    for _ in range(3):
        step(scheduler)
    before, numbers = counters(running), counters(scheduler)
    eligible = running.next_decode_eligible_step
    step(scheduler)
    moved = {name for name, value in counters(running).items() if value != before[name]}
    assert moved <= {"num_computed_tokens", "next_decode_eligible_step", "_output_token_ids",
                     "_all_token_ids"}  # fmt: skip
    assert running.num_computed_tokens == before["num_computed_tokens"] + 1
    assert running.next_decode_eligible_step == (eligible + 1 if eligible else 0)
    moved = {name for name, value in counters(scheduler).items() if value != numbers[name]}
    assert moved == set(step_counters(scheduler))
    assert all(getattr(scheduler, name) == numbers[name] + 1 for name in moved)


def counters(owner: Any) -> dict[str, Any]:
    """Whole numbers that an object keeps, and the lengths of its lists of tokens."""
    kept = {
        name: value
        for name, value in vars(owner).items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    tokens = ("_output_token_ids", "_all_token_ids")
    return kept | {name: len(getattr(owner, name)) for name in tokens if hasattr(owner, name)}


def test_what_a_stretch_asks_before_it_starts_is_there(build: Callable[..., Any]) -> None:
    scheduler = build()
    assert scheduler.num_spec_tokens == 0
    assert reads(Scheduler.schedule, "self.current_step")
    assert reads(Scheduler.schedule, "request.next_decode_eligible_step")
    scheduler.add_request(request(max_tokens=8))
    output = step(scheduler)
    assert [new.req_id for new in output.scheduled_new_reqs] == ["0"]
    assert scheduler.requests["0"].max_tokens == 8
