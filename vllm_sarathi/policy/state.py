"""What is read of vLLM's scheduler before a step: facts, nothing decided.

No vLLM object is needed to make them, so that a decision can be tested, simulated and
reasoned about without an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from vllm_sarathi.policy.company import Company

Rank = tuple[int, int, int, float]
"""Where a request stands in the order of service: the lower comes first."""

FIRST_COME: Rank = (0, 0, 0, 0.0)
"""The rank of all where vLLM's order stands."""

LAST: Rank = (1 << 31, 0, 0, 0.0)
"""The rank of those for whom nobody makes way."""


class RequestView(NamedTuple):
    """A request that still has prefill tokens to schedule.

    Attributes:
        request_id: vLLM's id of the request.
        num_tokens: prefill tokens left, at least 1, without those in the prefix cache.
        num_computed_tokens: tokens before them, the context of the next chunk.
        rank: where it stands in the order of service.
        pace_s: for one that waits, what it was promised, in seconds a step; infinite for none.
        num_spared: for one that waits, tokens that need no prefill; 0 once it has begun.
    """

    request_id: str
    num_tokens: int
    num_computed_tokens: int = 0
    rank: Rank = FIRST_COME
    pace_s: float = inf
    num_spared: int = 0


class Decodes(NamedTuple):
    """Requests that decode and that vLLM can schedule now: parallel lists, one entry for each.

    Attributes:
        requests: what the scheduler knows them by; opaque here.
        num_tokens: tokens they need, more than one with speculative decoding.
        contexts: tokens before them.
    """

    requests: Sequence[Any] = ()
    num_tokens: Sequence[int] = ()
    contexts: Sequence[int] = ()

    def at(self, places: Sequence[int]) -> "Decodes":
        """Those at some places, in that order."""
        return Decodes(*([column[place] for place in places] for column in self))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the steps before mean for the next one.

    Attributes:
        begin_s: when it can begin, on the monotonic clock.
        period_s: predicted time of the longest micro-batch in flight, in seconds;
            0 if none is, or none can be.
        is_as_planned: whether prefill came as planned in the step before: only then does
            a request make way for others, for vLLM may pass some over.
        paused_s: how long the decodes that paused last will have, by the time the next
            step begins, in seconds.
    """

    begin_s: float = 0.0
    period_s: float = 0.0
    is_as_planned: bool = False
    paused_s: float = 0.0


class Due(NamedTuple):
    """What was promised to the decodes of a step.

    Attributes:
        in_s: time until the earliest next token is due from when the step can begin, in
            seconds; infinite where none is.
        pace_s: the tightest pace of those whose promise can still be kept, in seconds a step.
        has_auto: whether a gap follows the objective derived from decode-only steps.
        wanted_in_s: time until the earliest next token that is wanted, but not promised (any more).
    """

    in_s: float = inf
    pace_s: float = inf
    has_auto: bool = False
    wanted_in_s: float = inf


class KvRoom(NamedTuple):
    """What is free of the KV cache.

    Attributes:
        num_blocks: blocks that there are.
        num_free_blocks: blocks that no running request holds.
        num_running: requests that run.
        block_size: tokens of a block.
        num_groups: KV-cache groups, each of which takes blocks for a request.
        num_lookahead_tokens: tokens beyond the scheduled ones that take room too.
        waiting_blocks: blocks that each waiting request in view takes, those aside that
            running requests hold already; None where that cannot be told, or where vLLM
            would admit another one first.
    """

    num_blocks: int
    num_free_blocks: int
    num_running: int
    block_size: int
    num_groups: int = 1
    num_lookahead_tokens: int = 0
    waiting_blocks: tuple[int, ...] | None = None

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens of one request take in a KV-cache group."""
        return -(-num_tokens // self.block_size)

    def num_sure_tokens(self, num_requests: int) -> int:
        """Tokens that free blocks surely hold, however they spread over so many requests."""
        num_blocks = self.num_free_blocks // self.num_groups - 2 * num_requests
        return num_blocks * self.block_size - num_requests * self.num_lookahead_tokens


NO_DECODES = Decodes()
NOTHING_DUE = Due()


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """The requests that vLLM could run in the next step, as read from its queues.

    Attributes:
        max_num_scheduled_tokens: vLLM's limit on the tokens of one step.
        max_chunk: vLLM's limit on the prefill tokens of one request in a step.
        num_seqs_left: how many more requests vLLM would let run.
        kv: what is free of the KV cache.
        decodes: decodes that are ready: their last token is known.
        num_decodes: all requests that decode, those in flight included.
        prefills: running requests with prefill left, in the order of service.
        waiting: the requests that vLLM would admit next, in the order of service; may be
            cut short.
        num_waiting: all requests that wait, at least ``len(waiting)``.
        is_by_rank: whether prefills are served by rank, those that run too.
        due: what was promised to the decodes.
        company: what those that run share; None where nobody asks: no token is followed, nobody
            waits or no seat is left.
        is_in_order: whether vLLM's list has the order of service, decodes before prefills.
        has_priorities: whether vLLM preempts by priority, not from the end of its list.
        lower_priority: running requests that vLLM preempts before the first waiting one.
        has_adapters: whether vLLM counts adapters over the requests that it sees.
        outlook: what the steps before mean for this one.
    """

    max_num_scheduled_tokens: int
    max_chunk: int
    num_seqs_left: int
    kv: KvRoom
    decodes: Decodes = NO_DECODES
    num_decodes: int = 0
    prefills: tuple[RequestView, ...] = ()
    waiting: tuple[RequestView, ...] = ()
    num_waiting: int = 0
    is_by_rank: bool = False
    due: Due = NOTHING_DUE
    company: Company | None = None
    is_in_order: bool = True
    has_priorities: bool = False
    lower_priority: frozenset[str] = frozenset()
    has_adapters: bool = False
    outlook: Outlook = Outlook()

    @property
    def num_prefill_tokens(self) -> int:
        """Prefill tokens left of running requests."""
        return sum(request.num_tokens for request in self.prefills)
