"""Run as a program: engines after one another in one process, and what each one's metrics say."""

import gc
import json
import sys
from collections import Counter
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.v1.metrics.reader import Histogram


def run(given: dict[str, Any], settings: dict[str, Any] | None) -> dict[str, Any]:
    """What ``LLM.get_metrics()`` returns right after two requests; None as settings is stock."""
    ours: dict[str, Any] = {}
    if settings is not None:
        ours = {"scheduler_cls": "sarathi", "additional_config": {"sarathi": settings}}
    llm = LLM(**given, **ours)
    prompts = [{"prompt_token_ids": [5] * 40}, {"prompt_token_ids": [6] * 30}]
    params = SamplingParams(max_tokens=3, ignore_eos=True, detokenize=False)
    llm.generate(prompts, params, use_tqdm=False)
    metrics = llm.get_metrics()
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    series = Counter(json.dumps([one.name, one.labels]) for one in metrics)
    return {
        "series": series,
        "counts": {one.name: one.count for one in metrics if isinstance(one, Histogram)},
    }


if __name__ == "__main__":
    given, runs = map(json.loads, sys.argv[1:])
    print(json.dumps([run(given, settings) for settings in runs]))
