"""Ends requests that can no longer get a first token in time, where the operator prefers that.

vLLM ends them as it ends those that fail: out of its queues, their blocks freed. Their
clients learn it from the outputs of the next step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from vllm.v1.engine import EngineCoreEventType, EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import RequestStatus

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.scheduler.snapshot import num_seqs_left
from vllm_sarathi.shed_notice import notice


@dataclass(slots=True)
class Shedding:
    """Sheds the waiting requests of a scheduler.

    Importance makes no difference: it has a request served earlier while that can be in time.

    Attributes:
        scheduler: a vLLM ``Scheduler``.
        order: of its waiting requests.
    """

    scheduler: Any
    order: WaitingOrder
    _untold: list[tuple[int, Any]] = field(default_factory=list)

    def end(self, late: Sequence[Any]) -> frozenset[Any]:
        """End those of the requests that may be shed.

        Where no other prompt runs or waits, the first of them is served however late: no overload
        makes it late, so trying again would not help, and how long prefill takes goes on being
        measured.

        Args:
            late: requests that wait and can no longer be in time.

        Returns:
            Those that were ended; the others still wait.
        """
        chosen = [request for request in late if may_be_shed(request)]
        if chosen and self._are_alone(len(chosen)):
            del chosen[0]
        if not chosen:
            return frozenset()
        said = notice(max(ceil(self.order.backlog_s), 1))
        told = [(request.client_index, _last_output(request, said)) for request in chosen]
        ids = [request.request_id for request in chosen]
        self.scheduler.finish_requests(ids, RequestStatus.FINISHED_ERROR)
        self._untold += told
        return frozenset(chosen)

    def _are_alone(self, num_late: int) -> bool:
        """Whether those that are late might run, and no other prompt runs or waits."""
        scheduler = self.scheduler
        num_waiting = scheduler.get_request_counts()[1]
        return (
            num_waiting - scheduler.num_waiting_for_streaming_input == num_late
            and num_seqs_left(scheduler) > 0
            and not any(request.is_prefill_chunk for request in scheduler.running)
        )

    def tell(self, outputs: dict[int, Any]) -> None:
        """Add what was ended to vLLM's ``EngineCoreOutputs`` of each client, once."""
        for client, output in self._untold:
            group = outputs.setdefault(client, EngineCoreOutputs())
            group.outputs = [*group.outputs, output]
        self._untold.clear()


def may_be_shed(request: Any) -> bool:
    """Whether a waiting request has shown its client nothing and can be ended alone.

    One that was preempted may have a token on its way. A session goes on with further input
    after each answer, and a pooling request has no tokens: vLLM expects a result of it.
    """
    has_run = request.num_preemptions or request.num_output_tokens
    is_session = request.streaming_queue is not None
    return not (has_run or is_session or request.sampling_params is None)


def _last_output(request: Any, said: str) -> Any:
    if request.events:  # else vLLM's histograms would take it as scheduled when the machine started
        request.record_event(EngineCoreEventType.SCHEDULED)
    return EngineCoreOutput(
        request_id=request.request_id,
        new_token_ids=[],
        finish_reason=FinishReason.ERROR,
        stop_reason=said,
        events=request.take_events(),
        trace_headers=request.trace_headers,
    )
