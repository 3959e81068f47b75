"""One engine, in a process of its own, answers what rows ask."""

import asyncio
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.step_log import logged_steps

LIMIT_S = 900

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # what is asked steps the engine itself
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}
COMMON: dict[str, Any] = {
    "model": "{llama}",
    "skip_tokenizer_init": True,
    "dtype": "float32",
    "max_model_len": 1024,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 1024,
    "enforce_eager": True,
    "disable_log_stats": False,
    "seed": 0,
}


def filled_in(value: Any, folders: Mapping[str, str]) -> Any:
    """A value in which ``{name}`` stands for a folder."""
    if isinstance(value, str) and value.startswith("{"):
        return folders[value.strip("{}")]
    if isinstance(value, Mapping):
        return {name: filled_in(inner, folders) for name, inner in value.items()}
    return [filled_in(inner, folders) for inner in value] if isinstance(value, list) else value


def arguments(
    engine: Mapping[str, Any], settings: Mapping[str, Any] | None, folders: Mapping[str, str]
) -> dict[str, Any]:
    """Arguments of vLLM's ``LLM``; None as settings is stock vLLM."""
    ours: dict[str, Any] = {}
    if settings is not None:
        ours = {"scheduler_cls": "sarathi", "additional_config": {"sarathi": dict(settings)}}
    found: dict[str, Any] = filled_in(COMMON | dict(engine) | ours, folders)
    return found


def ask(
    given: Mapping[str, Any],
    asks: Sequence[str],
    folders: Mapping[str, str],
    first_on_path: Path | None = None,
) -> dict[str, Any]:
    """The result of each ask, from one engine that starts for them and ends.

    Args:
        given: arguments of vLLM's ``LLM``.
        asks: functions of ``asks`` or ``async_asks``.
        folders: of models.
        first_on_path: where vLLM is imported from, if not from where it is installed.

    Raises:
        RuntimeError: the engine failed; holds the trace.
    """
    # A server that has imported vLLM forks each process: half of a start is imports.
    context: Any = get_context("spawn" if first_on_path else "forkserver")
    if first_on_path is None:
        context.set_forkserver_preload(["vllm", "vllm.v1.engine.async_llm"])
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_answer, args=(theirs, dict(given), list(asks), dict(folders), first_on_path)
    )
    process.start()
    theirs.close()
    try:
        found: tuple[str, Any] = ours.recv() if ours.poll(LIMIT_S) else ("failed", "no answer")
    except EOFError:
        found = ("failed", "the process ended")
    finally:
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
    outcome, results = found
    if outcome == "failed":
        raise RuntimeError(results)
    assert isinstance(results, dict)
    return results


def _answer(
    pipe: Connection, given: dict[str, Any], asks: list[str], folders: dict[str, str],
    first_on_path: Path | None,
) -> None:  # fmt: skip
    os.environ.update(ENVIRONMENT)
    if first_on_path is not None:
        sys.path.insert(0, str(first_on_path))
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        pipe.send(("answered", _results(given, asks, folders)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
    pipe.close()
    os._exit(0)  # an engine in this process does not end for good otherwise


def _results(given: dict[str, Any], asks: list[str], folders: dict[str, str]) -> dict[str, Any]:
    from tests.features import asks as offline_asks
    from tests.features import async_asks

    if hasattr(async_asks, asks[0]):
        return asyncio.run(async_asks.results(given, asks))
    from vllm import LLM

    llm = LLM(**given)
    results = {name: getattr(offline_asks, name)(llm, folders) for name in asks}
    llm.llm_engine.engine_core.shutdown()
    return results


def limits_of(step_log: Path) -> set[str]:
    """What kept the steps of an engine from being larger, from its step log."""
    return {step["limit"] for step in logged_steps(step_log)}
