"""Reads vLLM's block pool: what is free, what the prefix cache holds."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any


def num_free_blocks(scheduler: Any) -> int:
    """KV blocks that no running request holds."""
    return int(scheduler.kv_cache_manager.block_pool.get_num_free_blocks())


def holds_every_token(scheduler: Any) -> bool:
    """Whether the KV cache keeps all tokens of a request, and nothing else.

    Sliding windows and state-space layers keep less, so their need of blocks does not
    follow from a number of tokens.
    """
    groups = scheduler.kv_cache_config.kv_cache_groups
    kinds = (kind.__name__ for kind in type(groups[0].kv_cache_spec).__mro__)
    return len(groups) == 1 and "FullAttentionSpec" in kinds


def num_shared_blocks(scheduler: Any, request: Any) -> int:
    """Blocks of a waiting request's prefix that running requests hold: they cost it nothing."""
    if not _reads_cache(scheduler, request):
        return 0
    found = _num_prefix_blocks(scheduler, request, lambda block: bool(block.ref_cnt))
    return min(found, _most_cached_blocks(scheduler, request))


def num_spared_tokens(scheduler: Any, request: Any) -> int:
    """Tokens of a waiting request that need no prefill: computed already, or in the prefix cache.

    vLLM's own lookup counts as a query in its metrics, and takes time in proportion to
    what it finds; this one takes the logarithm.
    """
    if request.num_computed_tokens:
        return int(request.num_computed_tokens)
    if not _reads_cache(scheduler, request) or not holds_every_token(scheduler):
        return 0
    found = _num_prefix_blocks(scheduler, request, lambda block: True)
    block_size = int(scheduler.kv_cache_manager.block_pool.hash_block_size)
    return min(found, _most_cached_blocks(scheduler, request)) * block_size


def find_computing(scheduler: Any, request: Any, others: Iterable[Any]) -> Any | None:
    """The first of others that computes the next KV block of a waiting request's prefix, or None.

    Args:
        scheduler: a vLLM ``Scheduler``.
        request: waits.
        others: running requests with prefill left.
    """
    if request.num_computed_tokens or not _reads_cache(scheduler, request):
        return None
    hashes = request.block_hashes
    sharing = [other for other in others if other.block_hashes[:1] == hashes[:1]]
    if not (sharing and holds_every_token(scheduler)):  # most often: the cache need not be asked
        return None
    block_size = int(scheduler.kv_cache_manager.block_pool.hash_block_size)
    index = num_spared_tokens(scheduler, request) // block_size
    if index >= _most_cached_blocks(scheduler, request):
        return None
    for other in sharing:
        is_next = other.num_computed_tokens // block_size == index
        if is_next and other.block_hashes[index : index + 1] == hashes[index : index + 1]:
            return other
    return None


def _reads_cache(scheduler: Any, request: Any) -> bool:
    """Whether vLLM looks up the prefix of a request."""
    return bool(scheduler.kv_cache_manager.enable_caching and not request.skip_reading_prefix_cache)


def _most_cached_blocks(scheduler: Any, request: Any) -> int:
    """Blocks that a prompt may take from the cache: its last token is computed all the same."""
    block_size = int(scheduler.kv_cache_manager.block_pool.hash_block_size)
    return (int(request.num_tokens) - 1) // block_size


def _num_prefix_blocks(scheduler: Any, request: Any, counts: Callable[[Any], bool]) -> int:
    """Blocks of a request's prefix that are cached and count: vLLM frees from the end."""
    pool, hashes = scheduler.kv_cache_manager.block_pool, request.block_hashes

    def ends(index: int) -> bool:
        blocks = pool.get_cached_block(hashes[index], [0])
        return not blocks or not counts(blocks[0])

    return bisect_left(range(len(hashes)), True, key=ends)
