"""What a scheduling decision sees and what it says.

A step is one iteration of the engine: one batch through the model. These types
carry no vLLM object, so that a decision can be tested, simulated and reasoned
about without an engine.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from heapq import merge
from operator import attrgetter
from typing import NamedTuple


class RequestView(NamedTuple):
    """A request that still has prefill tokens to schedule.

    Attributes:
        request_id: vLLM's id of the request.
        num_tokens: prefill tokens left, at least 1, without those in the prefix cache.
        num_computed_tokens: tokens before them, the context of the next chunk.
        due_s: when its first token is due, in seconds; only the order counts.
    """

    request_id: str
    num_tokens: int
    num_computed_tokens: int = 0
    due_s: float = 0.0


class Chunk(NamedTuple):
    """Part of one request's prefill that runs in this step."""

    request_id: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the steps before mean for the next one.

    Attributes:
        period_s: predicted time of the longest micro-batch in flight, in seconds;
            0 if none is, or none can be.
        slack_s: how much longer than the objective a gap may be now, in seconds.
        may_wait: whether requests that could run may sit a step out.
        waited_s: how long they have, by the time the next step begins, in seconds.
    """

    period_s: float = 0.0
    slack_s: float = 0.0
    may_wait: bool = False
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StepView:
    """The requests that could run in the next step.

    Decodes are summed up, for there may be a thousand of them in every step.

    Attributes:
        max_num_scheduled_tokens: vLLM's limit on the tokens of one step.
        num_decodes: decodes that are ready: their last token is known.
        num_decode_tokens: tokens they need, more than one each with
            speculative decoding.
        decode_context_tokens: sum of their context lengths.
        prefills: running requests with prefill left, in the order of service.
        waiting: the requests that vLLM would admit next, in its order; may be
            cut short.
        num_waiting: all requests that wait, at least ``len(waiting)``.
        max_new_prefills: how many waiting requests may be admitted at most.
        max_new_tokens: prefill tokens of theirs for which KV blocks are free.
        is_kv_bound: none may, for free KV blocks are kept for running requests.
        num_in_flight: decodes that the batch leaves out, for their last token is not
            back, they ride in a later micro-batch, or they sit it out.
        outlook: what the steps before mean for this one.
    """

    max_num_scheduled_tokens: int
    num_decodes: int = 0
    num_decode_tokens: int = 0
    decode_context_tokens: int = 0
    prefills: tuple[RequestView, ...] = ()
    waiting: tuple[RequestView, ...] = ()
    num_waiting: int = 0
    max_new_prefills: int = 0
    max_new_tokens: int = sys.maxsize
    is_kv_bound: bool = False
    num_in_flight: int = 0
    outlook: Outlook = Outlook()

    @property
    def prompts(self) -> Iterator[RequestView]:
        """Requests with prefill left in the order of service; of equals, those that run first."""
        waiting = self.waiting[: self.max_new_prefills]
        return merge(self.prefills, waiting, key=attrgetter("due_s"))

    @property
    def num_unseen(self) -> int:
        """Waiting requests that may be admitted and that the view does not show."""
        num_admissible = min(self.num_waiting, self.max_new_prefills)
        return max(num_admissible - len(self.waiting), 0) if self.waiting else 0

    @property
    def mean_waiting_tokens(self) -> int:
        """Prefill tokens of a waiting request, on average of those that the view shows."""
        total = sum(request.num_tokens for request in self.waiting)
        return total // max(len(self.waiting), 1)

    @property
    def num_soon(self) -> int:
        """Waiting requests that may be admitted and for which KV blocks are free, guessed."""
        num_admissible = min(max(self.num_waiting, len(self.waiting)), self.max_new_prefills)
        num_fitting = -(-self.max_new_tokens // max(self.mean_waiting_tokens, 1))
        return min(num_admissible, num_fitting)

    @property
    def num_prefill_tokens(self) -> int:
        """Prefill tokens of the requests that run or will soon, guessed."""
        running = sum(request.num_tokens for request in self.prefills)
        return running + self.num_soon * self.mean_waiting_tokens

    @property
    def has_prefill(self) -> bool:
        """Whether any prefill could run."""
        return bool(self.prefills or (self.waiting and self.max_new_prefills))

    def without_decodes(self) -> "StepView":
        """The same, with the ready decodes left out."""
        later = self.num_in_flight + self.num_decodes
        return replace(
            self, num_decodes=0, num_decode_tokens=0, decode_context_tokens=0, num_in_flight=later
        )


class BatchLimit(Enum):
    """What kept a step from being larger."""

    PREFILL_LEFT = "prefill_left"
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
    MAXIMUM = "maximum"
    """vLLM's ``max_num_batched_tokens``."""


class BatchSize(NamedTuple):
    """What a token budget says of the next batch.

    Attributes:
        num_tokens: tokens that it may hold, decodes included.
        limit: what set that number.
        decodes_wait: whether the decodes sit it out.
    """

    num_tokens: int
    limit: BatchLimit
    decodes_wait: bool = False


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The next batch.

    Attributes:
        token_budget: most tokens that the step may schedule, decodes included.
        num_decode_tokens: tokens of the decodes: all ready ones run, or none.
        chunks: the prefill chunks, in the order of service.
        max_new_prefills: how many waiting requests may be admitted.
        limit: what kept the batch from being larger.
        decodes_wait: whether the ready decodes sit it out.
        max_chunk: most prefill tokens of one request.
    """

    token_budget: int
    num_decode_tokens: int = 0
    chunks: tuple[Chunk, ...] = ()
    max_new_prefills: int = 0
    limit: BatchLimit = BatchLimit.PREFILL_LEFT
    decodes_wait: bool = False
    max_chunk: int = sys.maxsize

    @property
    def num_prefill_tokens(self) -> int:
        """Prefill tokens of all chunks."""
        return sum(chunk.num_tokens for chunk in self.chunks)
