"""The small model that the set-up unpacks, which benchmarks serve unless told another."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
DEFAULT_MODEL = str(CACHE / "vllm-sarathi" / "SmolLM2-135M-Instruct")
