"""Composes the next batch.

Both policies put every ready decode into the batch first and let prefill have
what is left, so that no decode waits for a prefill; a token budget with an objective
may let decodes pause as long as the next token is in time.
"""

import sys
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from vllm_sarathi.policy.state import RequestView
from vllm_sarathi.policy.step import BatchLimit, BatchSize, Chunk, StepPlan, StepView

MIN_PREFILL_TOKENS = 16
"""Prefill tokens a batch has room for however many decodes fill its budget.

Without it a budget that the decodes use up would starve every prompt.
"""


class BatchBuilder(Protocol):
    """Turns what could run into what shall run."""

    def plan(self, view: StepView) -> StepPlan:
        """Compose the next batch."""
        ...


TokenBudget = Callable[[StepView], BatchSize]
"""How large the next batch may be."""


@dataclass(frozen=True, slots=True)
class DecodeMaximal:
    """SARATHI's decode-maximal batching (arXiv 2308.16369, section 4.2).

    Each batch holds exactly one prefill chunk, as long as there is any prefill,
    and every ready decode. The chunk is cut so that chunk and decodes together
    are a multiple of the tile (section 4.4).

    Unlike the paper, a prompt's last, shorter chunk is not filled up.

    Attributes:
        chunk_size: prefill tokens of a full chunk.
        tile_size: tokens that the batch is a multiple of; 1 for no rounding.
        min_prefill_tokens: room for prefill however many decodes there are.
    """

    chunk_size: int
    tile_size: int = 1
    min_prefill_tokens: int = MIN_PREFILL_TOKENS

    def plan(self, view: StepView) -> StepPlan:
        """Compose the next batch."""
        wanted = view.num_decode_tokens + self.chunk_size
        floor = view.num_decode_tokens + min(self.min_prefill_tokens, self.chunk_size)
        total, limit = round_to_tile(view, wanted, BatchLimit.CHUNK_SIZE, self.tile_size, floor)
        return fill_batch(view, total, limit, 1, self.min_prefill_tokens)


@dataclass(frozen=True, slots=True)
class StallFree:
    """Sarathi-Serve's stall-free batching (arXiv 2403.02310, section 4.2, algorithm 3).

    Under a token budget: all decodes, then prefills already begun, then new ones.

    Unlike the paper, a token budget that knows how long steps take may let the decodes
    pause, and new prefills that are due earlier come before those begun.

    Attributes:
        token_budget: tokens of a batch, decided anew for every step.
        tile_size: tokens that a batch with prefill is a multiple of; 1 for no
            rounding.
        max_prefills: chunks in one batch at most; None for no limit.
        min_prefill_tokens: room for prefill however many decodes there are.
    """

    token_budget: TokenBudget
    tile_size: int = 1
    max_prefills: int | None = None
    min_prefill_tokens: int = MIN_PREFILL_TOKENS

    def plan(self, view: StepView) -> StepPlan:
        """Compose the next batch."""
        if not view.has_prefill:
            return decodes_alone(view)
        wanted, limit, pauses = self.token_budget(view)
        if pauses:
            view = view.without_decodes()
        floor = view.num_decode_tokens + self.min_prefill_tokens
        total, limit = round_to_tile(view, wanted, limit, self.tile_size, floor)
        plan = fill_batch(view, total, limit, self.max_prefills, self.min_prefill_tokens)
        return replace(plan, pauses_decodes=True) if pauses else plan


def decodes_alone(view: StepView) -> StepPlan:
    """A batch of the decodes, where there is no prefill to size it for."""
    return StepPlan(
        token_budget=view.num_decode_tokens,
        num_decode_tokens=view.num_decode_tokens,
        decode_context_tokens=view.decode_context_tokens,
        max_new_prefills=0,
        limit=view.backlog.limit,
    )


def round_to_tile(
    view: StepView, wanted: int, limit: BatchLimit, tile_size: int, floor: int
) -> tuple[int, BatchLimit]:
    """Round a wanted batch size to what tile, floor and vLLM's maximum allow.

    Args:
        view: the requests, for the maximum.
        wanted: tokens that the policy asks for.
        limit: why it asks for no more.
        tile_size: tokens to round down to, or up where down falls below the floor.
        floor: least tokens that keep decodes and prefill alive.

    Returns:
        Tokens of the batch, at most ``view.max_num_scheduled_tokens``, and what
        set that number.
    """
    total = max(wanted, floor)
    if total >= view.max_num_scheduled_tokens:
        total, limit = view.max_num_scheduled_tokens, BatchLimit.MAXIMUM
    tiled = total // tile_size * tile_size
    if tiled < floor:
        tiled += tile_size
    if tiled == total or tiled > view.max_num_scheduled_tokens:
        return total, limit
    return tiled, BatchLimit.TILE


def fill_batch(
    view: StepView, total: int, limit: BatchLimit, max_prefills: int | None, min_prefill_tokens: int
) -> StepPlan:
    """Fill a batch of ``total`` tokens: decodes, then prefills in the order of service.

    The plan's ``token_budget`` leaves what the known prompts do not use to
    waiting ones beyond the view, unless ``max_prefills`` forbids more.
    """
    new = {request.request_id for request in view.backlog.shown}
    left = total - view.num_decode_tokens
    served, max_chunk = _served(view, left, max_prefills, new, min_prefill_tokens)
    chunks: list[Chunk] = []
    for request in served:
        if left <= 0:
            break
        num_tokens = min(request.num_tokens, max_chunk, view.max_chunk, left)
        chunks.append(Chunk(request.request_id, num_tokens))
        left -= chunks[-1].num_tokens
    num_new = sum(chunk.request_id in new for chunk in chunks)
    max_new = view.backlog.max_new
    if max_prefills is not None:
        max_new = min(max_new, max_prefills - len(chunks) + num_new)
    beyond = 0 if max_prefills is not None else view.backlog.num_tokens_beyond_view
    if max_new == 0 or not view.backlog.shown:
        total -= max(left, 0)
    return StepPlan(
        token_budget=total,
        num_decode_tokens=view.num_decode_tokens,
        decode_context_tokens=view.decode_context_tokens,
        chunks=tuple(chunks),
        max_new_prefills=max_new if left > 0 or num_new else 0,
        limit=limit if left <= 0 or left < beyond else view.backlog.limit,
        max_chunk=max_chunk,
    )


def _served(
    view: StepView, room: int, max_prefills: int | None, new: Set[str], min_prefill_tokens: int
) -> tuple[list[RequestView], int]:
    """Requests whose prefill fills the room, in the order of service, and most tokens of one.

    vLLM serves running requests before new ones. Where a new one is due before a running
    one that would leave it nothing, they share the room evenly. Where the shares would be
    too small the latter sits out, but for a room that then stays emptier than half.
    """
    served: list[RequestView] = []
    left = room
    for request in islice(view.prompts, max_prefills):
        if left <= 0:
            break
        served.append(request)
        left -= min(request.num_tokens, view.max_chunk)
    names = {request.request_id for request in served}
    if left >= 0 or names.isdisjoint(new) or served[-1].request_id in new:
        return served, sys.maxsize
    max_chunk = _even_chunk([request.num_tokens for request in served], room)
    if max_chunk >= min_prefill_tokens:
        return served, max_chunk
    if 2 * sum(request.num_tokens for request in served[:-1]) >= room:
        return served[:-1], sys.maxsize
    return sorted(served, key=lambda request: request.request_id in new), sys.maxsize


def _even_chunk(sizes: Sequence[int], room: int) -> int:
    """Tokens that nobody gets more of when prompts larger than the room fill it together."""
    num_left = len(sizes)
    for size in sorted(sizes):
        if size * num_left >= room:
            break
        room, num_left = room - size, num_left - 1
    return -(-room // num_left)
