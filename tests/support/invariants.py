"""What holds of a scheduler of ours after every step, whatever the traffic."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.request import RequestStatus

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.scheduler.vllm_versions import admission_attribute, second_waiting_queue

LEVERS = (
    "max_num_scheduled_tokens",
    "max_num_running_reqs",
    "max_num_active_reqs",
    "adaptive_long_prefill_threshold",
)
SEEN = Counter[str]()
"""What the steps that were checked did: a campaign that preempts nobody proves little."""

CAN_RUN = (RequestStatus.WAITING, RequestStatus.PREEMPTED)


def levers(scheduler: Any) -> tuple[Any, ...]:
    """What a plan overrides for a step."""
    threshold = scheduler.scheduler_config.long_prefill_token_threshold
    return (threshold, *(getattr(scheduler, name, None) for name in LEVERS))


def check_each_is_in_one_place(scheduler: Any, alive: set[str]) -> None:
    """Every request runs or waits, once, and no other does."""
    waiting = [*scheduler.waiting, *second_waiting_queue(scheduler)]
    places = Counter(r.request_id for r in (*scheduler.running, *waiting))
    assert set(scheduler.requests) == alive, "vLLM knows others than those that are alive"
    assert places == Counter(alive), "a request is lost or doubled"
    assert all(r.status == RequestStatus.RUNNING for r in scheduler.running)
    assert not any(r.status == RequestStatus.RUNNING for r in waiting)


def check_order(order: WaitingOrder | None) -> None:
    """The order's books say what a recount gives, and its front is its first."""
    if order is None:
        return
    places = list(order._places.values())
    listed = list(order)
    assert Counter(map(id, listed)) == Counter(map(id, places)), "the order misses a place"
    assert all(place.request is request for request, place in order._places.items())
    assert not any(place.is_gone for place in places)
    assert order._num_aside == sum(place.is_aside for place in places)
    assert order._tokens_in_time == sum(p.num_tokens for p in places if not p.is_aside)
    assert order.owed.num_tokens >= 0
    assert order.owed.blocked | order._bypassed <= order._places.keys()
    assert all(0 <= share <= 1 for share in order.share_aside.values())
    assert order.first() is (listed[0] if listed else None)


@dataclass
class StepCheck:
    """A scheduler as it was before a step, to be compared after it."""

    scheduler: Any

    def __post_init__(self) -> None:
        self.before = list(self.scheduler.running)
        self.levers = levers(self.scheduler)

    def __call__(self, output: Any) -> None:
        """Check the step that vLLM scheduled."""
        scheduler, tokens = self.scheduler, output.num_scheduled_tokens
        plan, snapshot = scheduler.step_observer.last
        assert levers(scheduler) == self.levers, "an attribute of vLLM's was not restored"
        after = scheduler.running
        preempted = [r for r in self.before if r not in after]
        survivors = [r for r in self.before if r in after]
        assert after[: len(survivors)] == survivors, "the running list lost its order"
        assert all(r.status == RequestStatus.PREEMPTED for r in preempted)
        if scheduler.policy == SchedulingPolicy.FCFS:
            assert preempted == self.before[len(survivors) :], "not vLLM's victim"
        assert output.total_num_scheduled_tokens == sum(tokens.values())
        assert set(tokens) <= {r.request_id for r in after}
        num_admitted = len(after) - len(survivors)
        limit = getattr(scheduler, admission_attribute(scheduler))
        assert not num_admitted or len(after) <= limit, "more run than vLLM's limit allows"
        SEEN.update(
            {
                "steps": 1,
                "tokens": sum(tokens.values()),
                "admitted": num_admitted,
                "preempted": len(preempted),
                "left out by plan": len(plan.skipped_decodes),
                "overtaken": len(plan.overtaken),
            }
        )
        self._check_plan(plan, tokens, num_admitted)
        if not preempted and scheduler.pause_state != PauseState.PAUSED_ALL:
            self._check_decodes(plan, snapshot, tokens)

    def _check_plan(self, plan: Any, tokens: dict[str, int], num_admitted: int) -> None:
        num_tokens, most = sum(tokens.values()), self.scheduler.max_num_scheduled_tokens
        assert num_tokens <= (min(plan.token_budget, most) if plan.chunks else most)
        if plan.max_new_prefills is not None:
            assert num_admitted <= plan.max_new_prefills
        skipped = {r.request_id for r in plan.skipped_decodes} | plan.overtaken
        assert skipped.isdisjoint(tokens), "a request runs that the plan left out"
        assert sum(self.scheduler.get_request_counts()) == 1 or all(
            num <= plan.max_chunk for num in tokens.values()
        )

    def _check_decodes(self, plan: Any, snapshot: Any, tokens: dict[str, int]) -> None:
        """No decode is left out but by the plan."""
        if self.scheduler.batch_policy.builder is None or self.scheduler.lora_config:
            return  # as vLLM lists them: prefill in front of a decode may leave it nothing
        ready = snapshot.state.decodes
        left_out = {r for r in ready.requests if r.request_id not in tokens}
        is_full = sum(ready.num_tokens) > self.scheduler.max_num_scheduled_tokens
        assert left_out <= set(plan.skipped_decodes) or is_full, "a decode waits for prefill"


def could_run(scheduler: Any) -> bool:
    """Whether an engine with nothing in flight has something to do for sure.

    Sessions that wait for input hold KV blocks, which others may lack.
    """
    if scheduler.pause_state == PauseState.PAUSED_ALL or scheduler.num_waiting_for_streaming_input:
        return False
    if scheduler.pause_state == PauseState.PAUSED_NEW:
        return bool(scheduler.running)
    return bool(scheduler.running) or any(r.status in CAN_RUN for r in scheduler.waiting)


def check_nothing_is_left(scheduler: Any) -> None:
    """Every block is free, and nobody is remembered, once all have ended."""
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "KV blocks are lost"
    observer = scheduler.step_observer
    assert not observer.promises.answers.begun, "an answer is followed that has ended"
    assert not list(observer._timer.in_flight)
    assert not scheduler._recorder._chunks
    order = observer.promises.order
    assert order is None or not (order._places or order.owed.blocked or order._bypassed)
    assert order is None or not order._lent
