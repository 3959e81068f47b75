"""vLLM's LLM with the scheduler's settings as keywords."""

from typing import Any

import vllm

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.plugin import register
from vllm_sarathi.scheduler_choice import with_scheduler


class LLM(vllm.LLM):
    """``vllm.LLM`` with ``scheduler`` and the settings of ``SarathiConfig`` as keywords.

    Args:
        model: name or path, as for ``vllm.LLM``.
        scheduler: "sarathi" or "default", vLLM's own.
        kwargs: settings of ``SarathiConfig``; everything else goes to ``vllm.LLM``.

    Raises:
        ValueError: a setting is wrong, or was given with ``scheduler="default"``.
    """

    def __init__(self, model: str, *, scheduler: str = "sarathi", **kwargs: Any) -> None:
        register()
        given = {name: kwargs.pop(name) for name in SarathiConfig.model_fields if name in kwargs}
        chosen = with_scheduler(
            scheduler,
            given,
            kwargs.pop("scheduler_cls", None),
            kwargs.pop("additional_config", None) or {},
        )
        super().__init__(model, **chosen, **kwargs)
