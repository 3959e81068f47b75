"""What a scheduling decision sees and what it says.

A step is one iteration of the engine: one batch through the model.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from heapq import merge
from operator import attrgetter
from typing import Any, NamedTuple

from vllm_sarathi.policy.state import NOTHING_DUE, Due, Outlook, RequestView

_NO_OUTLOOK = Outlook()


class Chunk(NamedTuple):
    """Part of one request's prefill that runs in this step."""

    request_id: str
    num_tokens: int


class BatchLimit(Enum):
    """What kept a step from being larger."""

    NO_MORE_PREFILL = "no_more_prefill"
    """Nothing more was there to schedule."""
    CHUNK_SIZE = "chunk_size"
    """The fixed chunk of decode-maximal batching."""
    TOKEN_BUDGET = "token_budget"
    """The fixed token budget."""
    OBJECTIVE = "objective"
    """The objective for the time between tokens."""
    TILE = "tile"
    """Whole tiles: some more tokens would cost more time than they are worth."""
    MICRO_BATCH = "micro_batch"
    """Even micro-batches: a longer one would leave bubbles in the pipeline."""
    KV_BLOCKS = "kv_blocks"
    """Free KV blocks are kept for the growth of running requests."""
    PACE = "pace"
    """One more request would make those that run miss their objectives."""
    MAXIMUM = "maximum"
    """vLLM's ``max_num_batched_tokens``."""
    VLLM = "vllm"
    """Whatever vLLM's own scheduler has: it decided alone."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Prefill that waits: a few requests in view, and what those beyond are taken for.

    Attributes:
        shown: the requests that vLLM would admit next, in the order of service.
        num_waiting: all requests that wait, at least ``len(shown)``.
        max_new: how many of them may be admitted at most.
        max_new_tokens: prefill tokens of theirs for which KV blocks are free.
        admission_blocked_by: why none may be admitted though fewer than max_num_seqs run, if so.
    """

    shown: tuple[RequestView, ...] = ()
    num_waiting: int = 0
    max_new: int = 0
    max_new_tokens: int = sys.maxsize
    admission_blocked_by: BatchLimit | None = None

    @property
    def limit(self) -> BatchLimit:
        """Why a batch that has room for more prefill gets none."""
        return self.admission_blocked_by or BatchLimit.NO_MORE_PREFILL

    @property
    def admissible(self) -> tuple[RequestView, ...]:
        """Those in view that may be admitted."""
        return self.shown[: self.max_new]

    @property
    def mean_tokens(self) -> int:
        """Prefill tokens of a request, on average of those in view."""
        return sum(request.num_tokens for request in self.shown) // max(len(self.shown), 1)

    @property
    def num_beyond_view(self) -> int:
        """Requests that may be admitted and are not in view."""
        num_admissible = min(self.num_waiting, self.max_new)
        return max(num_admissible - len(self.shown), 0) if self.shown else 0

    @property
    def num_tokens_beyond_view(self) -> int:
        """Prefill tokens of those, if all are of mean size."""
        return self.num_beyond_view * self.mean_tokens

    @property
    def num_soon(self) -> int:
        """Requests that may be admitted and for which KV blocks are free, if all are of mean size.

        They are admitted within a few steps, so that their prefill counts as work to do.
        """
        num_admissible = min(max(self.num_waiting, len(self.shown)), self.max_new)
        num_fitting = -(-self.max_new_tokens // max(self.mean_tokens, 1))
        return min(num_admissible, num_fitting)

    @property
    def num_tokens_soon(self) -> int:
        """Prefill tokens of those."""
        return self.num_soon * self.mean_tokens


@dataclass(frozen=True, slots=True)
class StepView:
    """The requests that the next batch is composed of.

    Decodes are summed up, for there may be a thousand of them in every step.

    Attributes:
        max_num_scheduled_tokens: vLLM's limit on the tokens of one step.
        max_chunk: vLLM's limit on the prefill tokens of one request in a step.
        num_decodes: decodes that may run in this batch.
        num_decode_tokens: tokens they need, more than one each with
            speculative decoding.
        decode_context_tokens: sum of their context lengths.
        num_other_decodes: decodes that the batch does not run: their last token is not
            back, they ride in a later micro-batch, or they pause.
        prefills: running requests with prefill left, in the order of service.
        backlog: prefill that waits.
        due: what was promised to the decodes.
        may_pause: whether decodes may sit this step out, for nothing but their objective.
        outlook: what the steps before mean for this one.
    """

    max_num_scheduled_tokens: int
    num_decodes: int = 0
    num_decode_tokens: int = 0
    decode_context_tokens: int = 0
    prefills: tuple[RequestView, ...] = ()
    backlog: Backlog = Backlog()
    num_other_decodes: int = 0
    due: Due = NOTHING_DUE
    may_pause: bool = False
    outlook: Outlook = _NO_OUTLOOK
    max_chunk: int = sys.maxsize

    @property
    def has_prefill(self) -> bool:
        """Whether any prefill could run."""
        return bool(self.prefills or self.backlog.admissible)

    @property
    def prompts(self) -> Iterator[RequestView]:
        """Requests with prefill left in the order of service; of equals, those that run first.

        Those that wait stand as in their queue, whatever their ranks.
        """
        return merge(self.prefills, self.backlog.admissible, key=attrgetter("rank"))

    @property
    def num_prefill_tokens(self) -> int:
        """Prefill tokens of the requests that run or will soon."""
        running = sum(request.num_tokens for request in self.prefills)
        return running + self.backlog.num_tokens_soon

    def without_decodes(self) -> "StepView":
        """The same, without its decodes."""
        others = self.num_other_decodes + self.num_decodes
        return replace(
            self,
            num_decodes=0,
            num_decode_tokens=0,
            decode_context_tokens=0,
            num_other_decodes=others,
        )


class BatchSize(NamedTuple):
    """What a token budget says of the next batch.

    Attributes:
        num_tokens: tokens that it may hold, decodes included.
        limit: what set that number.
        pauses_decodes: whether the decodes sit it out.
    """

    num_tokens: int
    limit: BatchLimit
    pauses_decodes: bool = False


class RunningOrder(Enum):
    """How vLLM's list of running requests stands in a step: vLLM serves it from the front."""

    UNCHANGED = "unchanged"
    """As vLLM has it."""
    DECODES_FIRST = "decodes_first"
    """Decodes, then prefills in the order of service."""
    LAST_DECODE_FIRST = "last_decode_first"
    """As vLLM has it, but prefills in front of the last decode sit the step out."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The next batch.

    Attributes:
        token_budget: most tokens that the step may schedule, decodes included.
        num_decode_tokens: tokens of the decodes: all of the view run, or none.
        decode_context_tokens: sum of their context lengths.
        chunks: the prefill chunks, in the order of service.
        max_new_prefills: how many waiting requests may be admitted; None leaves that to vLLM.
        max_chunk: most prefill tokens of one request.
        limit: what kept the batch from being larger.
        pauses_decodes: whether decodes that could run sit it out.
        skipped_decodes: requests of the decodes that could run and are not in the batch.
        order: how vLLM's running list stands.
        overtaken: ids of running prefills that sit it out for requests that still wait.
        objective_s: longest gap between tokens that is in time, in seconds; None for none.
        admission_blocked_by: why no waiting request may be admitted though fewer than max_num_seqs
            run, if so.
    """

    token_budget: int
    num_decode_tokens: int = 0
    decode_context_tokens: int = 0
    chunks: tuple[Chunk, ...] = ()
    max_new_prefills: int | None = None
    max_chunk: int = sys.maxsize
    limit: BatchLimit = BatchLimit.NO_MORE_PREFILL
    pauses_decodes: bool = False
    skipped_decodes: tuple[Any, ...] = ()
    order: RunningOrder = RunningOrder.UNCHANGED
    overtaken: frozenset[str] = frozenset()
    objective_s: float | None = None
    admission_blocked_by: BatchLimit | None = None

    @property
    def num_prefill_tokens(self) -> int:
        """Prefill tokens of all chunks."""
        return sum(chunk.num_tokens for chunk in self.chunks)
