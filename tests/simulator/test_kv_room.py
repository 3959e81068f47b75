"""The room that a request takes in the KV cache is what vLLM charges for it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec, SlidingWindowSpec

from vllm_sarathi.simulator.kv_room import check_kv_tokens, kv_blocks

GEMMA_3_27B = (*[1024] * 6, None)


def spec(window: int | None) -> KVCacheSpec:
    shape = {"block_size": 16, "num_kv_heads": 1, "head_size": 16, "dtype": torch.float16}
    if window is None:
        return FullAttentionSpec(**shape)
    return SlidingWindowSpec(**shape, sliding_window=window)


@pytest.mark.parametrize("num_tokens", [1, 16, 17, 1000, 131_072])
@pytest.mark.parametrize("in_flight_tokens", [256, 16_384])
@pytest.mark.parametrize("windows", [(None,), (128, None), GEMMA_3_27B, (4096,)])
def test_a_request_takes_as_many_blocks_as_in_vllm(
    windows: tuple[int | None, ...], in_flight_tokens: int, num_tokens: int
) -> None:
    config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=num_tokens),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=1, prefill_context_parallel_size=1
        ),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=in_flight_tokens),
        max_in_flight_tokens=in_flight_tokens,
    )
    charged = sum(
        one.max_memory_usage_bytes(config) // one.page_size_bytes for one in map(spec, windows)
    )
    (blocks,) = kv_blocks(np.array([num_tokens]), windows, 16, in_flight_tokens)
    assert blocks == charged


def test_groups_with_a_window_are_not_charged_for_the_whole_length() -> None:
    check_kv_tokens(120_124, 131_072, GEMMA_3_27B)
    with pytest.raises(ValueError, match=r"num_kv_tokens=30000 must be at least \d+ for max"):
        check_kv_tokens(30_000, 131_072, GEMMA_3_27B)
    with pytest.raises(ValueError, match="num_kv_tokens=120124 must be at least 131072"):
        check_kv_tokens(120_124, 131_072)
