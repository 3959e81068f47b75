"""SARATHI scheduling for vLLM.

What it offers is loaded when first asked for: importing this package imports no vLLM
and takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vllm_sarathi._version import __version__

if TYPE_CHECKING:
    from vllm_sarathi.config import SarathiConfig
    from vllm_sarathi.llm import LLM
    from vllm_sarathi.scheduler.mixin import AsyncSarathiScheduler, SarathiScheduler

__all__ = ["LLM", "AsyncSarathiScheduler", "SarathiConfig", "SarathiScheduler", "__version__"]

_LAZY = {
    "LLM": "vllm_sarathi.llm",
    "SarathiConfig": "vllm_sarathi.config",
    "SarathiScheduler": "vllm_sarathi.scheduler.mixin",
    "AsyncSarathiScheduler": "vllm_sarathi.scheduler.mixin",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
