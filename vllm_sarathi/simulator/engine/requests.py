"""A workload's requests, made one by one as they arrive."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from vllm_sarathi.simulator.engine.clock import EPOCH_S
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.engine.shortcuts import request_class
from vllm_sarathi.simulator.load.workload import Workload

# Token ids are made up: equal leading ids make equal KV blocks, nothing else matters.
_FIRST_PREFIX_ID = 1
_FIRST_UNIQUE_ID = 1 << 32


class RequestSource:
    """Makes vLLM requests out of a workload in order of arrival.

    A request's id is its index in the workload.

    Args:
        workload: lengths, times and classes.
        block_hasher: what hashes a request's blocks; None without prefix caching.
    """

    def __init__(self, workload: Workload, block_hasher: Callable[..., Any] | None) -> None:
        from vllm.sampling_params import SamplingParams

        self.workload = workload
        self.num_taken = 0
        self._request = request_class()
        self._hasher = block_hasher
        self._arrivals: list[float] = workload.arrival_s.tolist()
        self._prompts: list[int] = workload.lengths.num_prompt.tolist()
        self._outputs: list[int] = workload.lengths.num_output.tolist()
        self._class_of: list[int] = workload.class_of.tolist()

        @lru_cache(maxsize=4096)
        def params(max_tokens: int, class_index: int) -> Any:
            extra = workload.classes[class_index].extra_args
            return SamplingParams(
                max_tokens=max_tokens, ignore_eos=True, temperature=0.0, extra_args=extra
            )

        self._params = params

    @property
    def next_arrival_s(self) -> float | None:
        """When the next request arrives; None after the last."""
        if self.num_taken == len(self._arrivals):
            return None
        return self._arrivals[self.num_taken]

    def take(self) -> Any:
        """The next request."""
        index = self.num_taken
        self.num_taken += 1
        class_index = self._class_of[index]
        return self._request(
            str(index),
            self._token_ids(index),
            self._params(self._outputs[index], class_index),
            None,
            arrival_time=EPOCH_S + self._arrivals[index],
            priority=self.workload.classes[class_index].priority,
            block_hasher=self._hasher,
        )

    def _token_ids(self, index: int) -> list[int]:
        num_prompt, lengths = self._prompts[index], self.workload.lengths
        if self._hasher is None:
            return _same_tokens(num_prompt)
        if lengths.blocks is not None:
            ids = lengths.blocks.ids[index]
            known = [i for i in ids for _ in range(lengths.blocks.num_tokens)][:num_prompt]
            return known + [_FIRST_UNIQUE_ID + index] * (num_prompt - len(known))
        if lengths.num_shared is None or lengths.prefix is None:
            return [_FIRST_UNIQUE_ID + index] * num_prompt
        num_shared = min(int(lengths.num_shared[index]), num_prompt)
        prefix_id = _FIRST_PREFIX_ID + int(lengths.prefix[index])
        unique = [_FIRST_UNIQUE_ID + index] * (num_prompt - num_shared)
        return [prefix_id] * num_shared + unique


@lru_cache(maxsize=256)
def _same_tokens(num_tokens: int) -> list[int]:
    """Shared between requests, which copy it: vLLM never changes a prompt in place."""
    return [0] * num_tokens


def block_hasher(engine: EngineSettings) -> Callable[..., Any] | None:
    """What hashes a request's KV blocks; None without prefix caching."""
    if not engine.enable_prefix_caching:
        return None
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher

    hasher: Callable[..., Any] = get_request_block_hasher(engine.block_size, _hash_function())
    return hasher


@cache
def _hash_function() -> Callable[[Any], bytes]:
    """What hashes a block, set up once: older versions draw another first hash each time."""
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import init_none_hash

    function: Callable[[Any], bytes] = get_hash_fn_by_name("sha256")
    init_none_hash(function)
    return function
