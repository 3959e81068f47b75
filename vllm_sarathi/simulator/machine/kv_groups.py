"""How vLLM groups layers in the KV cache.

The layers of a group share blocks, so a block has room for one token's keys and values in
each of them. A group with a sliding window frees blocks behind it. Where a model has layers
with and without, all groups are of one size: that of the rarer kind, with the last group of
the other kind filled up, or that of the more frequent kind where there are hardly more
(vLLM 0.33, ``_get_kv_cache_groups_uniform_page_size``).
"""

from collections import Counter
from collections.abc import Sequence

from vllm_sarathi.simulator.machine.layers import Layer, Model

HARDLY_MORE = 1.5


def kv_windows(model: Model) -> tuple[int | None, ...]:
    """The window of each group; None where it keeps every token."""
    counts = Counter(layer.attention.window for layer in model.layers)
    fewest, most = min(counts.values()), max(counts.values())
    size = most if most < HARDLY_MORE * fewest else fewest
    return tuple(window for window, num in counts.items() for _ in range(-(-num // size)))


def layers_of_a_group(windows: Sequence[int | None], layers: Sequence[Layer]) -> int:
    """Layers of a pipeline stage that share a block, in its largest group."""
    counts = Counter(layer.attention.window for layer in layers)
    return max(-(-num // windows.count(window)) for window, num in counts.items())
