"""Every method of vLLM that a shortcut replaces, and what the shortcut takes for granted.

Each test fails where vLLM renames the part, or gives it another meaning.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.output import CachedRequestData
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tests.support.upstream import calls, parameters, reads, request, step
from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine import shortcuts

BLOCK_SIZE = EngineSettings().block_size
KINDS = ["Scheduler", "AsyncScheduler"]


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
    if not hasattr(StructuredOutputManager, "accept_tokens"):
        pytest.skip("a later vLLM brings it")
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
