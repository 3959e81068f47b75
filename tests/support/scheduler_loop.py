"""vLLM's real scheduler classes without an engine: a made-up model answers at once.

The next token is a checksum of the tokens before it, so that a scheduler that
loses, repeats or reorders a token changes every later one.
"""

import json
import zlib
from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import PropertyMock, patch

import torch
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCK_SIZE = 16


def next_token(known: Sequence[int]) -> int:
    """The model: the token that follows these."""
    return zlib.crc32(bytes(str(list(known)), "ascii")) % 1000


def model_folder() -> str:
    """A Llama-shaped configuration: the scheduler needs no weights."""
    return _model_folder().name


@cache
def _model_folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="tiny-llama-")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "vocab_size": 1000,
        "max_position_embeddings": 65536,
        "torch_dtype": "float32",
    }
    Path(folder.name, "config.json").write_text(json.dumps(config))
    return folder


@cache
def _engine_config(arguments: str) -> VllmConfig:
    """vLLM's configuration for arguments in JSON; kept, for it takes as long as a short run."""
    return EngineArgs(
        model=model_folder(), skip_tokenizer_init=True, **json.loads(arguments)
    ).create_engine_config()


class SchedulerLoop:
    """A scheduler and the loop around it.

    Args:
        scheduler_class: a vLLM scheduler class or one of ours.
        settings: settings of ours.
        num_blocks: KV blocks of 16 tokens.
        in_flight: batches scheduled before the first is answered.
        more_groups: KV-cache groups beside that of full attention.
        has_v2_runner: whether vLLM's second model runner serves, which needs a GPU.
        engine_args: arguments of vLLM's ``EngineArgs``.
    """

    def __init__(
        self,
        scheduler_class: type,
        settings: dict[str, Any] | None = None,
        num_blocks: int = 2_000,
        in_flight: int | None = None,
        more_groups: Sequence[KVCacheGroupSpec] = (),
        has_v2_runner: bool = False,
        **engine_args: Any,
    ) -> None:
        arguments: dict[str, Any] = {
            "max_model_len": 8192,
            "max_num_batched_tokens": 2048,
            "max_num_seqs": 256,
            "enable_prefix_caching": False,
            "block_size": BLOCK_SIZE,
            **engine_args,
        }
        config = deepcopy(_engine_config(json.dumps(arguments)))
        config.additional_config = {"sarathi": settings or {}}
        config.cache_config.num_gpu_blocks = num_blocks
        config.scheduler_config.async_scheduling = issubclass(scheduler_class, AsyncScheduler)
        spec = FullAttentionSpec(
            block_size=BLOCK_SIZE, num_kv_heads=1, head_size=16, dtype=torch.float32
        )
        kv_cache = KVCacheConfig(
            num_blocks=num_blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec), *more_groups],
        )
        self.hasher = None
        if arguments["enable_prefix_caching"]:
            hash_function = get_hash_fn_by_name("sha256")
            init_none_hash(hash_function)
            self.hasher = get_request_block_hasher(BLOCK_SIZE, hash_function)
        runner = PropertyMock(return_value=has_v2_runner)
        with patch.object(VllmConfig, "use_v2_model_runner", runner):
            self.scheduler = scheduler_class(
                vllm_config=config,
                kv_cache_config=kv_cache,
                structured_output_manager=StructuredOutputManager(config),
                block_size=BLOCK_SIZE,
                log_stats=True,
            )
        self.in_flight = in_flight or (2 if config.scheduler_config.async_scheduling else 1)
        self.queue: deque[tuple[Any, ModelRunnerOutput]] = deque()
        self.outputs: dict[str, list[int]] = {}
        self.finish_reasons: dict[str, list[Any]] = {}
        self.batches: list[str] = []
        self.preempted: list[str] = []

    def add(self, name: str, num_prompt: int = 0, max_tokens: int = 8, **options: Any) -> Request:
        """Add a request, of made-up or given prompt tokens."""
        seed = zlib.crc32(name.encode())
        prompt = options.pop("prompt", None) or [(seed + i * 7) % 1000 for i in range(num_prompt)]
        params = SamplingParams(
            max_tokens=max_tokens,
            ignore_eos=True,
            temperature=0.0,
            extra_args=options.pop("extra_args", None),
            **options.pop("sampling", {}),
        )
        request = Request(name, prompt, params, None, block_hasher=self.hasher, **options)
        self.outputs.setdefault(name, [])
        self.scheduler.add_request(request)
        return request

    def with_decodes(self) -> "SchedulerLoop":
        """The same engine, with three requests that decode."""
        for i in range(3):
            self.add(f"decode{i}", 20, max_tokens=64)
        for _ in range(5):
            self.step()
        self.batches.clear()
        return self

    def schedule(self, *args: Any) -> Any:
        """Schedule one batch and note it like ``D3 P256 P12``."""
        prefilling = {r.request_id for r in self.scheduler.running if r.is_prefill_chunk}
        running = {r.request_id for r in self.scheduler.running}
        output = self.scheduler.schedule(*args)
        tokens = output.num_scheduled_tokens
        chunks = [n for name, n in tokens.items() if name in prefilling or name not in running]
        num_decodes = len(tokens) - len(chunks)
        parts = [f"D{num_decodes}"] * bool(num_decodes) + [f"P{n}" for n in chunks]
        self.batches.append(" ".join(parts) or "-")
        self.preempted += sorted(output.preempted_req_ids or ())
        return output

    def step(self) -> Any:
        """One step of the engine's loop: fill the pipe, answer the oldest batch."""
        output = None
        while len(self.queue) < self.in_flight and self.scheduler.has_requests():
            output = self.schedule()
            self.queue.append((output, self._run(output)))
            if not output.total_num_scheduled_tokens:
                break
        if self.queue:
            self._answer(*self.queue.popleft())
        return output

    def run(self, most_steps: int = 10_000) -> str:
        """Step until all requests are done; the batches as one string."""
        for _ in range(most_steps):
            if not self.scheduler.has_unfinished_requests() and not self.queue:
                return " | ".join(batch for batch in self.batches if batch != "-")
            self.step()
        raise AssertionError(f"not done after {most_steps} steps: {self.scheduler.running}")

    def _run(self, output: Any) -> ModelRunnerOutput:
        names = list(output.num_scheduled_tokens)
        sampled = [
            [] if self.scheduler.requests[name].is_prefill_chunk else [self._token(name)]
            for name in names
        ]
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )

    def _token(self, name: str) -> int:
        """What follows the first ``num_computed_tokens`` tokens."""
        request = self.scheduler.requests[name]
        pending = [t for _, answer in self.queue for t in _tokens_of(answer, name)]
        num_pending = max(request.num_output_placeholders - 1, 0)  # those before are stale
        pending = pending[len(pending) - num_pending :]
        return next_token([*request.all_token_ids, *pending][: request.num_computed_tokens])

    def _answer(self, output: Any, answer: ModelRunnerOutput) -> None:
        results = self.scheduler.update_from_output(output, answer)
        for result in results.values():
            for item in result.outputs:
                self.outputs[item.request_id] += item.new_token_ids
                if item.finish_reason is not None:
                    self.finish_reasons.setdefault(item.request_id, []).append(item.finish_reason)


def _tokens_of(answer: ModelRunnerOutput, name: str) -> list[int]:
    index = answer.req_id_to_index.get(name)
    return [] if index is None else answer.sampled_token_ids[index]
