"""Engines of any settings that the configuration allows, as Hypothesis draws them."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from vllm.config import LoRAConfig

from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler

MAX_MODEL_LEN = 512
"""Longest request: 32 blocks, which the smallest cache below holds."""

MAX_PREFILL_TOKENS = 64
"""The smallest ``max_num_batched_tokens`` below, which no fixed batch exceeds."""

SERVER_WIDE: tuple[dict[str, Any], ...] = (
    {},
    {"ttft_slo_ms": 50.0},
    {"ttft_slo_ms": 2000.0, "tpot_slo_ms": 20.0},
    {"tpot_slo_ms": 15.0},
    {"e2e_slo_ms": 1000.0},
)
GAPS: tuple[dict[str, Any], ...] = (
    {},
    {"tbt_slo_ms": None},
    {"tbt_slo_ms": 30.0},
    {"tbt_slo_ms": 20.0, "max_stall_ms": 200.0},
)
CLASSES = {
    "qos_classes": {
        "gold": {"ttft_slo_ms": 300.0, "tpot_slo_ms": 20.0, "importance": 10},
        "iron": {"ttft_slo_ms": None, "importance": -5},
    },
    "client_objectives": ["qos", "ttft_slo_ms", "tpot_slo_ms", "e2e_slo_ms", "importance"],
}
PRESETS = ("slo", "slo", "slo", "stall-free", "stall-free", "decode-maximal", "observe", "offline")
ORDERS = ("hybrid", "edf", "srpf", "fcfs", "prefix", "mlfq")


@dataclass(frozen=True)
class EngineChoice:
    """One engine.

    Attributes:
        overlaps: whether scheduling is asynchronous.
        num_stages: pipeline stages.
        has_v2_runner: whether vLLM's second model runner serves, with which decodes may pause.
        has_adapters: whether one LoRA adapter may run at a time.
        settings: settings of ours.
        options: options of the loop.
    """

    overlaps: bool
    num_stages: int
    has_v2_runner: bool
    has_adapters: bool
    settings: dict[str, Any]
    options: dict[str, Any]

    @property
    def runs_adapters(self) -> bool:
        """In a pipeline vLLM forgets adapters of decodes that wait for their turn, and fails."""
        return self.has_adapters and self.num_stages == 1

    def loop(self) -> SchedulerLoop:
        """A loop around it, of as many batches in flight as vLLM has."""
        ours = AsyncSarathiScheduler if self.overlaps else SarathiScheduler
        loop = SchedulerLoop(
            ours,
            self.settings,
            in_flight=self.num_stages + self.overlaps,
            # vLLM's first model runner does not overlap the steps of a pipeline.
            has_v2_runner=self.has_v2_runner or (self.overlaps and self.num_stages > 1),
            pipeline_parallel_size=self.num_stages,
            max_model_len=MAX_MODEL_LEN,
            **self.options,
        )
        if self.runs_adapters:
            loop.scheduler.lora_config = LoRAConfig(max_loras=1)
        return loop


@st.composite
def settings_of_ours(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that are allowed."""
    preset = draw(st.sampled_from(PRESETS))
    chosen = {"preset": preset, **draw(st.sampled_from(SERVER_WIDE))}
    if draw(st.booleans()):
        chosen |= CLASSES
    if preset in ("slo", "observe"):
        chosen |= draw(st.sampled_from(GAPS))
    if preset in ("slo", "stall-free"):
        pace = {"tbt_slo_ms", "tpot_slo_ms", "qos_classes"} & chosen.keys()
        order = draw(st.sampled_from(ORDERS[:-1] if pace else ORDERS))
        chosen |= {"order": order, "shed": order != "fcfs" and draw(st.booleans())}
        chosen["max_prefills_per_batch"] = draw(st.sampled_from([None, None, 1, 2]))
    if preset == "stall-free":
        chosen["token_budget"] = draw(st.sampled_from([16, 40, MAX_PREFILL_TOKENS]))
    if preset == "decode-maximal":
        chosen["chunk_size"] = draw(st.sampled_from([16, 24, MAX_PREFILL_TOKENS]))
    if preset not in ("observe", "offline"):
        chosen["tile_size"] = draw(st.sampled_from(["auto", None, 16]))
        chosen["balance_micro_batches"] = draw(st.sampled_from([None, None, False]))
    return chosen


engines = st.builds(
    EngineChoice,
    overlaps=st.booleans(),
    num_stages=st.sampled_from([1, 1, 2]),
    has_v2_runner=st.booleans(),
    has_adapters=st.sampled_from([False] * 7 + [True]),
    settings=settings_of_ours(),
    options=st.fixed_dictionaries(
        {
            "num_blocks": st.sampled_from([34, 50, 120, 2000]),
            "max_num_batched_tokens": st.sampled_from([MAX_PREFILL_TOKENS, 200, 2048]),
            "max_num_seqs": st.sampled_from([16, 3, 1]),
            "enable_prefix_caching": st.booleans(),
            "scheduling_policy": st.sampled_from(["fcfs", "fcfs", "fcfs", "priority"]),
            "long_prefill_token_threshold": st.sampled_from([0, 0, 30]),
            "watermark": st.sampled_from([0.0, 0.0, 0.05]),
        }
    ),
)
