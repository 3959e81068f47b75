"""Every part of vLLM that the simulator replaces, skips, writes or builds.

Each test fails where vLLM renames the part, or gives it another meaning.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from vllm import envs
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import SchedulerInterface
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.core import EngineCore, EngineCoreProc
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine import shortcuts
from vllm_sarathi.simulator.engine.loop import model_runner_output
from vllm_sarathi.simulator.engine.requests import block_hasher
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine

BLOCK_SIZE = EngineSettings().block_size
KINDS = ["Scheduler", "AsyncScheduler"]


def parameters(function: Any) -> list[str]:
    """Names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def calls(function: Any, name: str) -> list[ast.Call]:
    """The calls of a method of this name in a function's source, in order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == name
    ]
    return sorted(found, key=lambda call: call.lineno)


def reads(owner: Any, expression: str) -> bool:
    """Whether the source of a class or function holds an attribute access as written."""
    return expression in inspect.getsource(owner)


def request(num_prompt: int = 20, max_tokens: int = 8, token: int = 0, hashed: bool = False) -> Any:
    """A request as the simulator makes it."""
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0.0)
    hasher = block_hasher(EngineSettings(enable_prefix_caching=hashed))
    return Request(
        "0", [token] * num_prompt, params, None,
        arrival_time=0.0, priority=0, block_hasher=hasher,
    )  # fmt: skip


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """Makes schedulers as the simulator does, without its shortcuts."""
    open_engines = []

    def make(kind: str = "Scheduler", **settings: Any) -> Any:
        engine = EngineSettings(async_scheduling=kind == "AsyncScheduler", **settings)
        context = gpu_engine(engine, 1, 100_000, 8192)
        open_engines.append(context)
        scheduler, _ = context.__enter__()
        return scheduler

    yield make
    for context in reversed(open_engines):
        context.__exit__(None, None, None)


def step(scheduler: Any) -> Any:
    """Schedule a batch and answer it with a token for each request that gets one."""
    output = scheduler.schedule()
    sampled = frozenset(
        name
        for name in output.num_scheduled_tokens
        if not scheduler.requests[name].is_prefill_chunk
    )
    scheduler.update_from_output(output, model_runner_output(output.num_scheduled_tokens, sampled))
    return output


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


@pytest.mark.parametrize("name", ["has_encoder_inputs", "use_structured_output"])
def test_what_text_requests_answer_at_once_is_a_property_that_schedulers_read(name: str) -> None:
    assert isinstance(inspect.getattr_static(Request, name), property)
    assert reads(Scheduler, f"request.{name}")
    assert getattr(request(), name) is False
    assert getattr(shortcuts.request_class(), name) is False


def test_text_requests_have_no_encoder_inputs_and_no_events() -> None:
    assert request().num_encoder_inputs == 0
    assert vars(shortcuts.request_class())["num_encoder_inputs"] == 0
    assert parameters(Request.take_events) == ["self"]
    assert request().take_events() is None
    assert calls(Scheduler.update_from_output, "take_events")


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


# shortcuts: methods that are replaced


@pytest.mark.parametrize(
    ("name", "caller", "names"),
    [
        (
            "_make_cached_request_data",
            Scheduler.schedule,
            ["running_reqs", "resumed_reqs", "num_scheduled_tokens", "spec_decode_tokens",
             "req_to_new_blocks"],
        ),
        (
            "_reserve_prefill_lookahead",
            Scheduler.schedule,
            ["request", "num_computed_tokens", "num_new_tokens"],
        ),
        (
            "_update_request_with_output",
            Scheduler.update_from_output,
            ["request", "new_token_ids", "is_stale"],
        ),
    ],
)  # fmt: skip
def test_a_replaced_method_has_these_parameters_and_is_called(
    build: Callable[..., Any], name: str, caller: Any, names: list[str]
) -> None:
    if not hasattr(Scheduler, name):
        pytest.skip("a later vLLM brings it")
    given = parameters(getattr(Scheduler, name))[1:]
    assert given == names[: len(given)]
    assert len(given) >= 2
    assert calls(caller, name)
    scheduler = build()
    shortcuts.install(scheduler)
    inspect.signature(vars(scheduler)[name]).bind(*given)


def test_a_prompt_without_lookahead_has_all_its_new_tokens(build: Callable[..., Any]) -> None:
    scheduler = build()
    if not hasattr(scheduler, "_reserve_prefill_lookahead"):
        pytest.skip("a later vLLM brings it")
    assert scheduler.num_prefill_lookahead == 0
    assert scheduler._reserve_prefill_lookahead(request(), 0, 7) == 7


def test_grammars_are_advanced_by_a_method_of_the_manager(build: Callable[..., Any]) -> None:
    (call,) = calls(Scheduler.update_from_output, "accept_tokens")
    assert len(call.args) == 2
    manager = build().structured_output_manager
    assert manager.accept_tokens(request(), [0]) is True


def test_the_message_to_workers_names_requests_and_their_progress(
    build: Callable[..., Any],
) -> None:
    scheduler = build(max_num_batched_tokens=16)
    scheduler.add_request(request())
    step(scheduler)
    theirs = scheduler.schedule().scheduled_cached_reqs
    running = scheduler.requests["0"]
    ours = shortcuts._cached_request_data([running], [], {"0": 4}, {}, {})
    assert isinstance(ours, CachedRequestData)
    assert ours.req_ids == theirs.req_ids == ["0"]
    assert ours.resumed_req_ids == theirs.resumed_req_ids == set()
    assert theirs.num_computed_tokens == [16]
    assert ours.num_computed_tokens == [running.num_computed_tokens]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 8])
def test_a_token_is_appended_as_vllm_does(
    build: Callable[..., Any], kind: str, caching: bool, max_tokens: int
) -> None:
    told = []
    for shortened in (False, True):
        scheduler = build(kind, enable_prefix_caching=caching)
        if shortened:
            shortcuts.install(scheduler)
        scheduler.add_request(request(max_tokens=max_tokens, hashed=caching))
        running = scheduler.requests["0"]
        scheduler.schedule()
        result = scheduler._update_request_with_output(running, [0])
        told.append(
            (
                result,
                running.status,
                list(running._output_token_ids),
                list(running._all_token_ids),
                running.num_output_placeholders,
                running.num_tokens,
                running.num_output_tokens,
            )
        )
    assert told[0] == told[1]
    assert told[0][0] == ([0], max_tokens == 1)
    assert (told[0][1] is RequestStatus.FINISHED_LENGTH_CAPPED) == (max_tokens == 1)


def test_a_request_at_the_models_limit_is_capped(build: Callable[..., Any]) -> None:
    scheduler = build()
    long = request(num_prompt=scheduler.max_model_len - 1)
    assert scheduler._update_request_with_output(long, [0]) == ([0], True)
    assert long.status is RequestStatus.FINISHED_LENGTH_CAPPED


def test_a_request_hashes_the_blocks_that_a_token_fills() -> None:
    assert reads(Request.append_output_token_ids, "self.update_block_hashes()")
    assert reads(Request.update_block_hashes, "self._block_hasher")


def test_a_running_request_asks_for_slots_with_one_keyword() -> None:
    for_running = calls(Scheduler.schedule, "allocate_slots")[0]
    assert len(for_running.args) == 2
    assert [keyword.arg for keyword in for_running.keywords] == ["num_lookahead_tokens"]
    assert parameters(KVCacheManager.allocate_slots)[:3] == ["self", "request", "num_new_tokens"]


def test_slots_for_a_token_that_fits_into_the_last_block_change_nothing(
    build: Callable[..., Any],
) -> None:
    scheduler = build()
    manager = scheduler.kv_cache_manager
    (group,) = manager.coordinator.single_type_managers
    assert type(group) is FullAttentionManager
    assert group.block_size == BLOCK_SIZE
    scheduler.add_request(request(num_prompt=BLOCK_SIZE + 1))
    step(scheduler)
    running = scheduler.requests["0"]
    before = list(group.req_to_blocks["0"]), dict(group.num_cached_block)
    assert len(before[0]) == 2
    assert manager.allocate_slots(running, 1, num_lookahead_tokens=0).get_block_ids() == ([],)
    assert (list(group.req_to_blocks["0"]), dict(group.num_cached_block)) == before
    assert manager.empty_kv_cache_blocks.get_block_ids() == ([],)
    assert manager.max_model_len == scheduler.max_model_len


def test_full_blocks_are_cached_and_counted(build: Callable[..., Any]) -> None:
    scheduler = build(enable_prefix_caching=True)
    manager = scheduler.kv_cache_manager
    assert manager.enable_caching is True
    assert parameters(KVCacheManager.cache_blocks)[:3] == [
        "self", "request", "num_computed_tokens",
    ]  # fmt: skip
    scheduler.add_request(request(40, hashed=True))
    step(scheduler)
    (group,) = manager.coordinator.single_type_managers
    assert group.num_cached_block["0"] == 2


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
    assert moved == {"current_step"}
    assert scheduler.current_step == numbers["current_step"] + 1


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
    assert scheduler.num_lookahead_tokens == 0
    assert reads(Scheduler.schedule, "self.current_step")
    assert reads(Scheduler.schedule, "request.next_decode_eligible_step")
    scheduler.add_request(request(max_tokens=8))
    output = step(scheduler)
    assert [new.req_id for new in output.scheduled_new_reqs] == ["0"]
    assert scheduler.requests["0"].max_tokens == 8
