"""What requests were promised, read from them and from their tokens, and who is served next."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.engine import FinishReason

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.objectives import ObjectivesReader, RequestObjectives
from vllm_sarathi.policy import presets
from vllm_sarathi.policy.answers import AnswerListener, Answers
from vllm_sarathi.policy.batch_builder import MIN_PREFILL_TOKENS
from vllm_sarathi.policy.company import Company, mean_context
from vllm_sarathi.policy.deadlines import Promise
from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Place
from vllm_sarathi.policy.state import NOTHING_DUE, Due, Outlook, Rank
from vllm_sarathi.policy.step_time import StepTimeModel, StepWork
from vllm_sarathi.scheduler.kv_blocks import find_computing, num_spared_tokens
from vllm_sarathi.scheduler.vllm_versions import passed_over

LEAST_PACE = 2.0
"""Steps of a lone decode that a client's pace spans at least, to bind the others: what a small
batch cannot keep, nobody else waits for."""

_STEP_WEIGHT = 1 / 50
"""Weight of the last step in means over steps: they follow load within a second or two."""

MAX_BYPASSED = 7
"""Waiting requests that one may bypass: so many, and one more, are looked at in a step in which the
first does not fit the pace."""

MAX_LENDERS = 4
"""Waiting requests that may lend their rank: as many as a plan sees."""

_CUT_OFF = (FinishReason.ABORT, FinishReason.ERROR)


@dataclass(slots=True)
class Promises:
    """The promises of a scheduler's requests, and how far each is kept.

    Attributes:
        scheduler: a vLLM ``Scheduler``.
        reader: reads the objectives of a request.
        order: of those that wait; None leaves it to vLLM.
        default: what a request that says nothing is promised.
        step_time: predicts step times.
        answers: of the requests whose tokens are followed.
        listen: makes who listens to the tokens of a request with such objectives that arrived
            then, on the monotonic clock; None for nobody.
        sheds: whether those that are late are refused, so that their steps teach nothing.
    """

    scheduler: Any
    reader: ObjectivesReader
    order: WaitingOrder | None
    default: Promise
    step_time: StepTimeModel
    answers: Answers = field(default_factory=Answers)
    listen: Callable[[RequestObjectives, float], AnswerListener] | None = None
    sheds: bool = False
    _known: WeakKeyDictionary[Any, Promise] = field(default_factory=WeakKeyDictionary)
    _step_s: float = 0.0
    _full_step_s: float = 0.0
    _num_prefill: float = 0.0

    @classmethod
    def of(cls, scheduler: Any, settings: SarathiConfig, step_time: StepTimeModel) -> "Promises":
        """The promises under these settings."""
        waiting = presets.order(settings)
        if waiting is not None:
            waiting.num_ahead += bool(scheduler.scheduler_config.async_scheduling)
        reader = ObjectivesReader(settings)
        promise = Promise.of(reader.default)
        return cls(scheduler, reader, waiting, promise, step_time, sheds=settings.shed)

    @property
    def follows_tokens(self) -> bool:
        """Whether any request is followed token by token."""
        return bool(self.answers.begun) or not self.default.is_uniform

    @property
    def _has_priorities(self) -> bool:
        return bool(self.scheduler.policy == SchedulingPolicy.PRIORITY)

    def objectives(self, request: Any) -> RequestObjectives:
        """What a request asks."""
        params = request.sampling_params
        return self.reader.read_or_default(params.extra_args if params else None)

    def promise(self, request: Any) -> Promise:
        """What a request was promised."""
        found = self._known.get(request)
        if found is None:
            found = self._known[request] = Promise.of(self.objectives(request))
        return found

    def first_due_s(self, request: Any) -> float:
        """When a request's first token is due, on the clock of its arrival."""
        promise = self.promise(request)
        decode_s = 0.0
        if promise.e2e_s < inf:
            decode_s = self.answers.mean_output / self.answers.tokens_per_step * self._step_s
        return promise.first_due_s(request.arrival_time, decode_s)

    def place(self, request: Any) -> Place:
        """The place of a request among those that wait."""
        num_spared = num_spared_tokens(self.scheduler, request)
        return self._place(request, max(request.num_tokens - num_spared, 1))

    def _place(self, request: Any, num_tokens: int) -> Place:
        return Place(
            request,
            arrival_s=request.arrival_time,
            due_s=self.first_due_s(request),
            num_tokens=num_tokens,
            importance=self.promise(request).importance,
            priority=request.priority if self._has_priorities else 0,
            block_hashes=request.block_hashes,
            has_begun=bool(request.num_output_tokens),
        )

    def rank(self, request: Any, num_tokens: int) -> Rank:
        """Where a request with so many prefill tokens left stands in this step."""
        assert self.order is not None
        place = self._place(request, num_tokens)
        place.is_aside = self.order.steps_aside(place, time.time())
        is_owed = self.order.owes(request) if request in self.order else self.order.pays(place)
        rank = self.order.rank(place)
        return min(rank, self.order.owed_rank(place)) if is_owed else rank

    def expire(self) -> list[Any]:
        """Let those step aside that can no longer be in time; who did."""
        return [] if self.order is None else self.order.expire(time.time())

    def is_late(self, request: Any) -> bool:
        """Whether a request waits that cannot be in time any more."""
        order = self.order
        is_aside = order is not None and request in order and order.is_aside(request)
        return is_aside and self.first_due_s(request) < inf

    def due(
        self,
        ready: Sequence[Any],
        others: Sequence[Any],
        outlook: Outlook,
        has_prefill: bool = True,
    ) -> Due:
        """What was promised to decodes, and when the earliest next token is due.

        Args:
            ready: vLLM's requests that can decode in this step.
            others: those that decode and whose last token is not back: the step delays
                their next one by its whole length.
            outlook: when the step can begin.
            has_prefill: whether any prefill could run beside them; if not, nobody asks what
                they were promised one by one.
        """
        if self.follows_tokens and not has_prefill:
            return NOTHING_DUE
        if not self.follows_tokens:
            gap_s = self.default.stall_s
            has_auto = self.default.is_auto and bool(ready or others)
            return Due(gap_s - outlook.paused_s, gap_s, has_auto)
        due_s = pace_s = wanted_s = inf
        has_auto, auto_is_left = False, self.reader.is_auto
        begun, begin_s, least_s = self.answers.begun, outlook.begin_s, self._least_pace_s()
        expected = self.answers.tokens_per_step
        per_step = 1 + int(self.scheduler.num_spec_tokens)
        for request in ready:  # up to a thousand, in every step
            answer = begun.get(request.request_id)
            if answer is None:
                promise = self.promise(request)
                has_auto = has_auto or promise.is_auto
                if not promise.is_uniform:
                    continue
                its_pace_s = promise.stall_s
                its_due_s = begin_s - outlook.paused_s + its_pace_s
            else:
                has_auto = has_auto or answer.promise.is_auto or (auto_is_left and answer.is_lost)
                its_pace_s = answer.pace_s
                if its_pace_s < least_s:
                    its_pace_s, its_due_s = least_s, begin_s + least_s
                else:
                    num_in_flight = -(-request.num_output_placeholders // per_step)
                    its_due_s = answer.next_due_s(num_in_flight, begin_s)
                    if least_s <= answer.tokens_per_step * answer.wanted_tpot_s < inf:
                        wanted_s = min(wanted_s, answer.next_wanted_s(num_in_flight))
            if its_pace_s < pace_s:
                pace_s = its_pace_s
            if its_due_s < due_s:
                due_s = its_due_s
        for request in others:
            answer, promise = begun.get(request.request_id), self.promise(request)
            has_auto = has_auto or promise.is_auto
            if answer is not None:
                has_auto = has_auto or (auto_is_left and answer.is_lost)
                if least_s <= answer.tokens_per_step * answer.wanted_tpot_s < inf:
                    wanted_s = min(wanted_s, answer.next_wanted_s(1))
            its_pace_s = max(answer.pace_s if answer else promise.pace_s(expected), least_s)
            due_s, pace_s = min(due_s, begin_s + its_pace_s), min(pace_s, its_pace_s)
        return Due(due_s - begin_s, pace_s, has_auto, wanted_s - begin_s)

    def company(self) -> Company | None:
        """What those that run share; None where no token is followed or nobody waits."""
        scheduler, begun = self.scheduler, self.answers.begun
        if not (scheduler.waiting and self.follows_tokens):
            return None
        order, expected = self.order, self.answers.tokens_per_step
        pace_s = least_important = inf
        least_s = self._least_pace_s()
        mean_output, context_tokens = self.answers.mean_output, 0.0
        for request in scheduler.running:
            answer = begun.get(request.request_id)
            promise = answer.promise if answer else self.promise(request)
            pace_s = min(pace_s, answer.pace_s if answer else promise.pace_s(expected))
            least_important = min(least_important, promise.importance)
            context_tokens += mean_context(
                request.num_prompt_tokens, request.num_computed_tokens, mean_output
            )
        first = self.promise(scheduler.waiting.peek_request())
        return Company(
            len(scheduler.running),
            context_tokens,
            mean_output,
            max(pace_s, least_s),
            least_s,
            is_outranked=first.importance > least_important,
            tokens_each=1 + int(scheduler.num_spec_tokens),
            # While a batch is owed, its prefill comes first: others need no time beside it.
            mean_prefill=0.0 if order is None or order.owes_one_waiting else order.mean_prefill,
            mean_steps=max(mean_output / expected, 1.0),
        )

    def pace_s(self, request: Any) -> float:
        """What one that waits was promised, in seconds a step; infinite once it is late."""
        if self.is_late(request):
            return inf
        return self.promise(request).pace_s(self.answers.tokens_per_step)

    def lend_ranks(self, company: Company | None, keeps_pace: Callable[[Company], bool]) -> None:
        """Serve running requests no later than the first that wait, if they compute their prefix.

        So it is computed once: one that waits gets prefill when the other one has all of its own.
        One that cannot be admitted lends nothing.

        Args:
            company: those that run; None where no token is followed.
            keeps_pace: whether those that run together keep the tightest pace among them.
        """
        order, scheduler = self.order, self.scheduler
        if not order or self._has_priorities:
            return
        prefills = [request for request in scheduler.running if request.is_prefill_chunk]
        skipped = passed_over(scheduler)
        for place in list(islice(order, MAX_LENDERS)):
            request = place.request
            computing = find_computing(scheduler, request, prefills)
            if computing is None or request in skipped:
                continue
            if company is None or company.admits_any or self._fits(place, company, keeps_pace):
                num_tokens = request.num_tokens - num_spared_tokens(scheduler, request)
                order.lend_rank(request, num_tokens, computing)

    def bypass(self, company: Company, keeps_pace: Callable[[Company], bool]) -> None:
        """Let the first of those that wait and fit the pace bypass those before it that do not.

        Not where those that are late are refused: one that is bypassed would be. Priorities are
        vLLM's matter.

        Args:
            company: those that run.
            keeps_pace: whether those that run together keep the tightest pace among them.
        """
        if self.order is None or company.admits_any or self._has_priorities or self.sheds:
            return
        front, skipped = list[Any](), passed_over(self.scheduler)
        for place in islice(self.order, MAX_BYPASSED + 1):
            if place.request in skipped:
                continue
            if self._fits(place, company, keeps_pace):
                if front:
                    self.order.bypass(front, place.request)
                return
            front.append(place.request)

    def _fits(self, place: Place, company: Company, keeps_pace: Callable[[Company], bool]) -> bool:
        """Whether those that run keep their pace once one that waits has joined them."""
        request = place.request
        num_spared = 0 if place.has_begun else num_spared_tokens(self.scheduler, request)
        return keeps_pace(company.joined_by(request.num_tokens, self.pace_s(request), num_spared))

    def _least_pace_s(self) -> float:
        """Tightest pace that binds others: the operator's own, or what a small batch can keep."""
        lone_s = self.step_time.predict(StepWork(1))
        return min(self.default.pace_s(self.answers.tokens_per_step), LEAST_PACE * lone_s)

    def scheduled(self, output: Any, chunks: Iterable[Any]) -> None:
        """Note what a step does: whose prefill it ends, and who has ended."""
        for request_id in output.finished_req_ids:
            self.answers.forget(request_id)
        to_monotonic_s = time.monotonic() - time.time()
        for request in chunks:
            if request.is_prefill_chunk or request.num_output_tokens:
                continue
            if request.sampling_params is None:  # a pooling request gets no tokens
                continue
            promise = self.promise(request)
            if self.follows_tokens or promise != self.default:
                due_s = self.first_due_s(request) + to_monotonic_s
                arrival_s = request.arrival_time + to_monotonic_s
                listener = self.listen and self.listen(self.objectives(request), arrival_s)
                self.answers.expect(request.request_id, promise, arrival_s, due_s, listener)

    def came(self, outputs: Mapping[int, Any]) -> None:
        """Note the tokens that a step brought, in vLLM's ``EngineCoreOutputs`` of each client."""
        if not self.answers.begun:
            return
        now_s = time.monotonic()
        for group in outputs.values():
            if self.scheduler.num_spec_tokens:
                self.answers.count_drafts(group.outputs)
            self.answers.came(group.outputs, now_s, _CUT_OFF)

    def finished(self, num_prefill_tokens: int, duration_s: float, is_full: bool) -> None:
        """Note how long a step took, and how much prefill it did if there was more to do."""
        self._step_s += _STEP_WEIGHT * (duration_s - self._step_s)
        if self.order is None:
            return
        if is_full:
            self._full_step_s += _STEP_WEIGHT * (duration_s - self._full_step_s)
            self._num_prefill += _STEP_WEIGHT * (num_prefill_tokens - self._num_prefill)
        elif self.sheds and num_prefill_tokens and self._num_prefill:
            # A step with room takes longer per token than a full one. A stall that was taken for
            # the pace would shed all, so that no full step would ever correct it.
            most_s = duration_s * self._num_prefill / num_prefill_tokens
            self._full_step_s = min(self._full_step_s, most_s)
        else:
            return
        self.order.step_s = self._full_step_s
        self.order.token_s = self._full_step_s / max(self._num_prefill, 1.0)
        self.order.owed.batch_tokens = max(round(self._num_prefill), MIN_PREFILL_TOKENS)
