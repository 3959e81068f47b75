"""Real vLLM scheduler classes without an engine around them."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from vllm_sarathi.simulator.engine.settings import EngineSettings

ALIASES = {
    ("stock", False): "vllm.v1.core.sched.scheduler.Scheduler",
    ("stock", True): "vllm.v1.core.sched.async_scheduler.AsyncScheduler",
    ("sarathi", False): "vllm_sarathi.SarathiScheduler",
    ("sarathi", True): "vllm_sarathi.AsyncSarathiScheduler",
}


def load_vllm() -> None:
    """Import what a run needs of vLLM, which takes seconds."""
    for path in ALIASES.values():
        module, _, name = path.rpartition(".")
        getattr(import_module(module), name)


def scheduler_class(settings: EngineSettings) -> type:
    """Import the scheduler class that the settings name.

    Raises:
        ValueError: it cannot be imported, or is no scheduler.
    """
    path = ALIASES.get((settings.scheduler, settings.async_scheduling), settings.scheduler)
    module, _, name = path.rpartition(".")
    try:
        found: type = getattr(import_module(module), name)
    except Exception as error:  # whatever a module of the user's own may raise
        raise ValueError(
            f"scheduler={settings.scheduler!r} cannot be imported ({type(error).__name__}: "
            f"{error}); allowed are 'stock', 'sarathi' or the dotted path of a class"
        ) from error
    from vllm.v1.core.sched.interface import SchedulerInterface

    is_scheduler = isinstance(found, type) and issubclass(found, SchedulerInterface)
    if not is_scheduler or isabstract(found):
        raise ValueError(
            f"scheduler={settings.scheduler!r} is {found!r}; it must be a class that implements "
            "vLLM's SchedulerInterface"
        )
    return found


@contextmanager
def gpu_engine(
    settings: EngineSettings,
    num_stages: int,
    num_kv_tokens: int,
    max_model_len: int,
    kv_windows: Sequence[int | None] = (None,),
) -> Iterator[tuple[Any, Any]]:
    """Build the scheduler as an engine on GPUs would.

    vLLM reads which model runner it is from the environment, which is therefore set
    for as long as the scheduler lives: it decides how many batches are in flight.
    ``kv_windows`` has the sliding window of each KV-cache group, each of which has room
    for ``num_kv_tokens``.

    Yields:
        The scheduler, and vLLM's configuration for it.
    """
    from vllm_sarathi.scheduler.faults import Faults

    chosen = scheduler_class(settings)
    limits = json.dumps([max_model_len, _engine_args(settings, max_model_len)])
    config = _engine_config(limits)
    # What the engine arguments say beside it is a scheduler's of the user's own.
    config.additional_config = {**config.additional_config, "sarathi": dict(settings.sarathi)}
    # Set afterwards: the platform that simulates would refuse what a GPU allows.
    config.scheduler_config.async_scheduling = settings.async_scheduling
    config.parallel_config.pipeline_parallel_size = num_stages
    runner = {"VLLM_USE_V2_MODEL_RUNNER": str(int(settings.v2_model_runner))}
    with (
        mock.patch.dict(os.environ, runner),
        _uncached_environment(),
        mock.patch.object(Faults, "are_raised", True),  # a simulation shall not hide any
    ):
        scheduler = _build(chosen, config, num_kv_tokens // settings.block_size, kv_windows)
        try:
            yield scheduler, config
        finally:
            scheduler.shutdown()


def _engine_args(settings: EngineSettings, max_model_len: int) -> dict[str, Any]:
    speculative: dict[str, Any] = {}
    if settings.speculation is not None:
        # EAGLE is what vLLM allows with and without async scheduling. The scheduler reads how
        # many tokens it drafts and the KV slots that these take; any model will do.
        speculative["speculative_config"] = {
            "method": "eagle",
            "model": _model_folder(max_model_len),
            "num_speculative_tokens": settings.speculation.num_tokens,
        }
    return {
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "max_num_seqs": settings.num_seqs,
        "enable_prefix_caching": bool(settings.enable_prefix_caching),
        "block_size": settings.block_size,
        "scheduling_policy": settings.policy,
        **speculative,
        **settings.engine_args,
    }


@lru_cache(maxsize=64)
def _engine_config(limits: str) -> Any:
    """vLLM's configuration; kept, for it takes longer to make than a short run."""
    from vllm.engine.arg_utils import EngineArgs

    max_model_len, engine_args = json.loads(limits)
    return EngineArgs(
        model=_model_folder(max_model_len),
        skip_tokenizer_init=True,
        max_model_len=max_model_len,
        async_scheduling=False,
        **engine_args,
    ).create_engine_config()


def _build(chosen: type, config: Any, group_blocks: int, kv_windows: Sequence[int | None]) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import (
        FullAttentionSpec,
        KVCacheConfig,
        KVCacheGroupSpec,
        SlidingWindowSpec,
    )
    from vllm.v1.structured_output import StructuredOutputManager

    block_size = config.cache_config.block_size
    config.cache_config.num_gpu_blocks = num_blocks = group_blocks * len(kv_windows)
    shape = {
        "block_size": block_size, "num_kv_heads": 1, "head_size": 16, "dtype": torch.float16
    }  # fmt: skip
    specs = [
        SlidingWindowSpec(**shape, sliding_window=window) if window else FullAttentionSpec(**shape)
        for window in kv_windows
    ]
    kv_cache = KVCacheConfig(
        num_blocks=num_blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec([f"layer{i}"], spec) for i, spec in enumerate(specs)],
    )
    return chosen(
        vllm_config=config,
        kv_cache_config=kv_cache,
        structured_output_manager=StructuredOutputManager(config),
        block_size=block_size,
        log_stats=False,
    )


@contextmanager
def _uncached_environment() -> Iterator[None]:
    """An engine in this process makes vLLM cache the environment; look past the cache."""
    import vllm.envs as envs

    cached = hasattr(envs.__getattr__, "cache_clear")
    if cached:
        envs.disable_envs_cache()
    try:
        yield
    finally:
        if cached:
            envs.enable_envs_cache()


@cache
def _model_folder(max_model_len: int) -> str:
    """A Llama-shaped configuration: a scheduler needs no weights."""
    folder = TemporaryDirectory(prefix="simulated-model-")
    _FOLDERS.append(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 80,
        "vocab_size": 1000,
        "max_position_embeddings": max_model_len,
        "torch_dtype": "float16",
    }
    (Path(folder.name) / "config.json").write_text(json.dumps(config))
    return folder.name


_FOLDERS: list[TemporaryDirectory[str]] = []
