"""Blocks of the KV cache that a request takes, as vLLM counts them before it admits one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BLOCK_SIZE = 16
# Where no engine is chosen yet: vLLM's budget on a server's GPU, and a second step ahead.
IN_FLIGHT_TOKENS = 2 * 8192

Ints = npt.NDArray[np.int64]


def kv_blocks(
    num_tokens: Ints,
    kv_windows: Sequence[int | None] = (None,),
    block_size: int = BLOCK_SIZE,
    in_flight_tokens: int = IN_FLIGHT_TOKENS,
) -> Ints:
    """Blocks that requests take in all groups of layers together.

    A group with a window keeps the window and the steps in flight, for blocks behind it are
    freed when a step's tokens are back. Its first block may be half behind the window, hence
    one block more (vLLM 0.33, ``SlidingWindowSpec.max_admission_blocks_per_request``).

    Args:
        num_tokens: of each request.
        kv_windows: the window of each group; None where it keeps every token.
        block_size: tokens in a block.
        in_flight_tokens: most tokens of the steps that are scheduled and not yet back.
    """
    blocks = np.zeros_like(num_tokens)
    for window in kv_windows:
        if window is None:
            blocks += -(-num_tokens // block_size)
        else:
            kept = np.minimum(num_tokens, window - 1 + in_flight_tokens)
            blocks += -(-kept // block_size) + 1
    return blocks


def check_kv_tokens(
    num_kv_tokens: int, max_model_len: int, kv_windows: Sequence[int | None] = (None,)
) -> None:
    """Refuse a KV cache that cannot hold the longest request, as vLLM does.

    Raises:
        ValueError: names both.
    """
    blocks = int(kv_blocks(np.array([max_model_len]), kv_windows)[0])
    if num_kv_tokens // BLOCK_SIZE * len(kv_windows) < blocks:
        least = -(-blocks // len(kv_windows)) * BLOCK_SIZE
        raise ValueError(
            f"num_kv_tokens={num_kv_tokens} must be at least {least} for max_model_len="
            f"{max_model_len}: vLLM refuses to start otherwise"
        )
