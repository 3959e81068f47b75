"""How a test looks at vLLM itself: its signatures, its sources, one step of its scheduler."""

import ast
import inspect
import textwrap
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request

from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.loop import model_runner_output
from vllm_sarathi.simulator.engine.requests import block_hasher


def parameters(function: Any) -> list[str]:
    """Names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def calls(function: Any, name: str) -> list[ast.Call]:
    """The calls of a method of this name in a function's source, in order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == name
    ]
    return sorted(found, key=lambda call: call.lineno)


def reads(owner: Any, expression: str) -> bool:
    """Whether the source of a class or function holds an attribute access as written."""
    return expression in inspect.getsource(owner)


def request(num_prompt: int = 20, max_tokens: int = 8, token: int = 0, hashed: bool = False) -> Any:
    """A request as the simulator makes it."""
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0.0)
    hasher = block_hasher(EngineSettings(enable_prefix_caching=hashed))
    return Request(
        "0", [token] * num_prompt, params, None,
        arrival_time=0.0, priority=0, block_hasher=hasher,
    )  # fmt: skip


def step(scheduler: Any) -> Any:
    """Schedule a batch and answer it with a token for each request that gets one."""
    output = scheduler.schedule()
    sampled = frozenset(
        name
        for name in output.num_scheduled_tokens
        if not scheduler.requests[name].is_prefill_chunk
    )
    scheduler.update_from_output(output, model_runner_output(output.num_scheduled_tokens, sampled))
    return output
