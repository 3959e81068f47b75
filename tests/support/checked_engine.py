"""An engine core around a scheduler of ours that checks itself after every step."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from tests.support.any_engine import MAX_MODEL_LEN, EngineChoice
from tests.support.asked import Asked, Turn
from tests.support.clock import virtual_time
from tests.support.invariants import (
    SEEN,
    StepCheck,
    check_each_is_in_one_place,
    check_nothing_is_left,
    check_order,
    could_run,
)
from vllm_sarathi.scheduler.vllm_versions import second_waiting_queue

STEP_S, TOKEN_S = 0.010, 1e-4
"""Seconds of an empty step, and of each token in it."""

STEPS_PER_TOKEN = 2
"""Steps for each token that was asked, within which all must have ended."""


class CheckedEngine:
    """The loop of vLLM's engine core in virtual time.

    Args:
        choice: which engine.

    Attributes:
        asked: what clients asked so far.
        without_grammar: requests that wait for their grammar to be compiled.
    """

    def __init__(self, choice: EngineChoice) -> None:
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(virtual_time())
        self.choice = choice
        self.loop = choice.loop()
        self.scheduler = self.loop.scheduler
        if hasattr(StructuredOutputManager, "accept_tokens"):  # from 0.30, ahead of the grammar's
            self.scheduler.structured_output_manager.accept_tokens = lambda *_: True
        self.asked: dict[str, Asked] = {}
        self.without_grammar: dict[str, Request] = {}
        self._num_idle = 0
        SEEN["engines"] += 1

    def ask(self, turn: Turn, name: str | None = None, is_session: bool = False, **how: Any) -> str:
        """Let a new request come, or the next turn of a session."""
        name = name or f"r{len(self.asked)}"
        asked = self.asked.setdefault(name, Asked(name, MAX_MODEL_LEN, is_session))
        asked.ask(turn)
        sampling = {"stop_token_ids": sorted(turn.stops), **how.pop("sampling", {})}
        request = self.loop.add(
            name,
            prompt=list(turn.prompt),
            max_tokens=turn.max_tokens,
            sampling=sampling,
            arrival_time=self.clock.now_s,
            resumable=is_session,
            **how,
        )
        if request.use_structured_output:
            self.without_grammar[name] = request
        return name

    def close(self, asked: Asked) -> None:
        """No further turn of a session comes."""
        asked.is_closed = True
        self.loop.add(asked.name, 1, arrival_time=self.clock.now_s)

    def compile(self, name: str, error: Exception | None = None) -> None:
        """The grammar of a request is ready: one that takes any token; or an error."""
        request = self.without_grammar.pop(name)
        assert request.structured_output_request is not None
        grammar = error or Mock(spec=StructuredOutputGrammar)
        request.structured_output_request.grammar = grammar

    def cut_off(self, asked: Asked, status: Any) -> None:
        """The client of a request goes away."""
        asked.is_cut_off = True
        self.without_grammar.pop(asked.name, None)
        self.scheduler.finish_requests(asked.name, status)

    @property
    def alive(self) -> list[Asked]:
        """What has not ended: those that were shed have, though nobody was told yet."""
        shedding = self.scheduler._shedding
        shed = {output.request_id for _, output in shedding._untold} if shedding else set()
        return [a for a in self.asked.values() if a.name not in shed and not self._has_ended(a)]

    @property
    def sessions(self) -> list[Asked]:
        """Sessions of which more turns may come."""
        return [asked for asked in self.alive if asked.is_session and not asked.is_closed]

    @property
    def can_schedule(self) -> bool:
        """Whether the engine core would schedule a batch now."""
        return len(self.loop.queue) < self.loop.in_flight and self.scheduler.has_requests()

    def schedule(self, throttles: bool = False) -> Any:
        """Schedule one batch more, and check it."""
        check, could = StepCheck(self.scheduler), could_run(self.scheduler)
        output = self.loop.schedule(throttles)
        could = could and not (throttles or self.loop.queue)
        self.loop.queue.append((output, self.loop._run(output)))
        check(output)
        is_idle = could and not output.total_num_scheduled_tokens
        self._num_idle = self._num_idle + 1 if is_idle else 0
        assert self._num_idle <= 1 + self.choice.num_stages, "nothing runs though something could"
        return output

    def answer(self) -> None:
        """Let the oldest batch in flight come back."""
        if not self.loop.queue:
            return
        output, answer = self.loop.queue.popleft()
        self.clock.now_s += STEP_S + TOKEN_S * output.total_num_scheduled_tokens
        preempted = {r for r in self.scheduler.waiting if r.resumable and r.num_preemptions}
        self.loop._answer(output, answer)
        self._check_tokens(answer.req_ids)
        self._cut_off_lost(preempted)

    def step(self) -> None:
        """Let the engine core's loop go round once."""
        while self.can_schedule and self.schedule().total_num_scheduled_tokens:
            pass
        self.answer()
        self.check()

    def check(self) -> None:
        """Nobody is lost, and the books are right."""
        check_each_is_in_one_place(self.scheduler, {asked.name for asked in self.alive})
        check_order(self.scheduler.step_observer.promises.order)

    def end(self) -> None:
        """Let all that was asked end: nothing is left behind."""
        self.scheduler.set_pause_state(PauseState.UNPAUSED)
        for name in list(self.without_grammar):
            self.compile(name)
        for asked in self.sessions:
            self.close(asked)
        num_tokens = sum(asked.num_known for asked in self.asked.values())
        for _ in range(100 + STEPS_PER_TOKEN * num_tokens):
            if not (self.scheduler.has_requests() or self.loop.queue):
                break
            self.step()
        assert not self.alive, "a request never ended"
        self._check_tokens(self.asked)
        check_nothing_is_left(self.scheduler)
        SEEN["requests"] += len(self.asked)
        SEEN["shed or failed"] += sum(
            not (
                asked.is_cut_off or asked.is_answered(self.loop.finish_reasons.get(asked.name, []))
            )
            for asked in self.asked.values()
        )

    def _cut_off_lost(self, preempted: set[Request]) -> None:
        """A session preempted with the last token of a turn in flight: stock vLLM drops it too."""
        waiting = {*self.scheduler.waiting, *second_waiting_queue(self.scheduler)}
        for request in preempted - waiting:
            if request.request_id in self.scheduler.requests:
                self.cut_off(self.asked[request.request_id], RequestStatus.FINISHED_ABORTED)

    def _has_ended(self, asked: Asked) -> bool:
        return asked.has_ended(self.loop.finish_reasons.get(asked.name, []))

    def _check_tokens(self, names: Iterable[str]) -> None:
        for name in names:
            self.asked[name].check(self.loop.finish_reasons.get(name, []), self.loop.outputs[name])
