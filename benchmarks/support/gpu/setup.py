"""What is measured, and how much of it."""

import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from support.gpu.shape import LLAMA_3_8B, MAX_MODEL_LEN, TINY, written
from support.model import CACHE
from support.server import memory_share

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator import LENGTHS, Lengths

OBJECTIVES = Objectives(ttft_s=2.0, tpot_s=0.05)
FITS = 0.75  # share of the context that a request may fill: real tokenizers change lengths
NO_GPU = "no GPU: CPU run, only proves that the script works"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        seconds: arrivals of one load.
        burst: requests of a load that come at once.
        warm_up: as above, of the load that a server gets first.
        most_running: requests at a time where a load bounds them.
        shorter: the ShareGPT-like requests are so many times shorter.
        multiples: loads against goodput, of the rate that stock's default serves of a burst.
        gap_load: as above, of the loads against gaps.
        gaps_ms: objectives for gaps.
        settings: of stock vLLM, "max_num_batched_tokens/max_num_seqs"; the first is its default
            on a large GPU.
        largest_prefill: most tokens of a directly measured batch.
        repeats: times that each of these batches runs.
        decodes: decodes in the steps without prefill.
        answers: prompts whose tokens are compared.
        running: requests that run while schedulers are timed.
        seeds: loads of each kind.
    """

    seconds: float = 45.0
    burst: int = 200
    warm_up: int = 48
    most_running: int = 64
    shorter: float = 1.0
    multiples: tuple[float, ...] = (0.5, 0.7, 0.85, 1.0, 1.3, 1.7)
    gap_load: float = 0.6
    gaps_ms: tuple[int, ...] = (25, 50, 100)
    settings: tuple[str, ...] = (
        "8192/256", "2048/256", "1024/128", "512/256", "512/64", "256/256",
    )  # fmt: skip
    largest_prefill: int = 1024
    repeats: int = 7
    decodes: tuple[int, ...] = (1, 8, 32, 128)
    answers: int = 40
    running: tuple[int, ...] = (16, 256)
    seeds: int = 3

    @property
    def long_prompt(self) -> int:
        """Tokens from which a prompt is long."""
        return round(2048 / self.shorter)


FULL = Sizes()
SMOKE = Sizes(
    seconds=4.0, burst=12, warm_up=8, most_running=4, shorter=64.0, multiples=(0.5, 1.5),
    gaps_ms=(50,), settings=("2048/256",), largest_prefill=128, repeats=2, decodes=(1, 4),
    answers=4, running=(16,), seeds=1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setup:
    """A machine, a model and what is asked of them.

    Attributes:
        model: what vLLM is given: a folder or a name.
        name: what results call it.
        has_weights: whether they are the model's own.
        gpu: what the driver says of the GPU; None without one.
        sizes: how much is measured.
        seeds: loads of each kind.
        settings: of stock vLLM.
    """

    model: str
    name: str
    has_weights: bool
    gpu: str | None
    sizes: Sizes
    seeds: int
    settings: tuple[str, ...] = field(default=())

    @property
    def notice(self) -> str:
        """What stands above each table."""
        return NO_GPU if self.gpu is None else self.gpu

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of every server. CUDA graphs are vLLM's default."""
        dummy = () if self.has_weights else ("--load-format", "dummy")
        cpu = ("--dtype", "float32", "--enforce-eager") if self.gpu is None else memory_share(1)
        length = ("--max-model-len", str(MAX_MODEL_LEN), "--no-enable-prefix-caching")
        return (*length, "--async-scheduling", *dummy, *cpu)

    def as_json(self) -> dict[str, Any]:
        """What results of one file have in common; seeds and settings may be added later."""
        open_ = ("settings", "seeds")
        sizes = {name: of for name, of in asdict(self.sizes).items() if name not in open_}
        vllm = version("vllm")
        return {"model": self.name, "gpu": self.gpu, "vllm": vllm, "sizes": sizes}

    def requests(self, num: int, seed: int) -> Lengths:
        """ShareGPT-like lengths, at most three quarters of the context together."""
        drawn = LENGTHS["sharegpt"].draw(num, np.random.default_rng(seed))
        output = np.maximum(2, np.rint(drawn.num_output / self.sizes.shorter)).astype(np.int64)
        prompt = np.maximum(1, np.rint(drawn.num_prompt / self.sizes.shorter)).astype(np.int64)
        return Lengths(np.minimum(prompt, round(FITS * MAX_MODEL_LEN) - output), output)


def setup(model: str | None, smoke: bool, seeds: int | None, settings: tuple[str, ...]) -> Setup:
    """The set-up that was asked for; without a GPU it is the small one."""
    gpu = gpu_name()
    sizes = SMOKE if smoke or gpu is None else FULL
    shape = LLAMA_3_8B if sizes is FULL else TINY
    served = model or str(written(shape, CACHE / "vllm-sarathi"))
    name = Path(served).name if Path(served).exists() else served
    num_seeds, given = seeds or sizes.seeds, settings or sizes.settings
    return Setup(served, name, model is not None, gpu, sizes, num_seeds, given)


def gpu_name() -> str | None:
    """Name, memory and driver of the first GPU that vLLM would use; None without one."""
    if "cpu" in version("vllm"):
        return None
    query = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def engine_flags(setting: str) -> tuple[str, ...]:
    """Flags of "max_num_batched_tokens/max_num_seqs"."""
    budget, max_num_seqs = setting.split("/")
    return ("--max-num-batched-tokens", budget, "--max-num-seqs", max_num_seqs)


def our_flags(setting: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Flags of our server: limits of the engine, and our settings."""
    own = [
        word
        for name, value in settings.items()
        for word in (f"--sarathi-{name.replace('_', '-')}", f"{value}")
    ]
    return (*engine_flags(setting), "--scheduler", "sarathi", *own)
