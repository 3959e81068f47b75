"""Free KV blocks are kept for those that run, but never at a more important one's expense."""

from dataclasses import replace

import pytest

from vllm_sarathi.policy.kv_reserve import MAX_RESERVED_SHARE, RESERVED_BLOCKS, backlog
from vllm_sarathi.policy.state import KvRoom, RequestView, SchedulerState


def state(num_blocks: int, num_free: int, num_running: int, num_tokens: int) -> SchedulerState:
    """Requests that decode, and one that waits, in a KV cache with blocks of 16 tokens."""
    room = KvRoom(num_blocks, num_free, num_running, 16)
    return SchedulerState(
        max_num_scheduled_tokens=8192,
        num_free_seats=100,
        kv=room._replace(first_waiting_blocks=room.num_blocks_for(num_tokens)),
        num_decodes=num_running,
        waiting=(RequestView("waits", num_tokens),),
        num_waiting=1,
    )


def admits(state: SchedulerState) -> bool:
    return not backlog(state).is_kv_bound


@pytest.mark.parametrize(("num_free", "admitted"), [(24, True), (23, False)])
def test_each_running_request_keeps_blocks_to_grow(num_free: int, admitted: bool) -> None:
    assert RESERVED_BLOCKS == 4
    assert admits(state(10_000, num_free, 5, num_tokens=64)) == admitted


@pytest.mark.parametrize(("num_free", "admitted"), [(66, True), (65, False)])
def test_many_running_requests_keep_a_share_of_the_cache_at_most(
    num_free: int, admitted: bool
) -> None:
    assert int(MAX_RESERVED_SHARE * 1000) == 62
    assert admits(state(1000, num_free, 200, num_tokens=64)) == admitted


@pytest.mark.parametrize(("num_tokens", "admitted"), [(80, True), (81, False)])
def test_a_cache_of_a_few_blocks_is_used_to_the_last(num_tokens: int, admitted: bool) -> None:
    assert admits(state(10, 5, 1, num_tokens)) == admitted


def test_less_important_requests_keep_nothing_from_a_more_important_one() -> None:
    prefilling = replace(state(10_000, 4, 1, num_tokens=64), prefills=(RequestView("runs", 1000),))
    assert not admits(prefilling)
    assert admits(replace(prefilling, less_important=frozenset({"runs"})))
