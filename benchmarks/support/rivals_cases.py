"""The loads and engines of ``rivals.py``."""

from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
from packaging.version import Version
from support.goodput_cases import DECODE_ONLY, SOURCES
from support.goodput_runs import MAX_MODEL_LEN, Run, ours
from support.rivals.compute_share import ComputeShare
from support.rivals.delegation import Anchor, rival
from support.rivals.fair_batching import FairBatching
from support.rivals.ppas import PPas
from support.rivals.qoserve import QoServe
from support.rivals.sliding_serve import SlidingServe
from support.runs import Figures

from vllm_sarathi.simulator import (
    LENGTHS,
    EngineSettings,
    LongAmongShort,
    Objectives,
    QosClass,
    Report,
    Speculation,
    Synthetic,
    Workload,
)
from vllm_sarathi.simulator.load.traffic import LengthSource, Traffic

TTFT_S, TPOT_S = 2.0, 0.050
OBJECTIVES = Objectives(ttft_s=TTFT_S, tpot_s=TPOT_S)
TOLD = {"ttft_slo_ms": TTFT_S * 1e3, "tpot_slo_ms": TPOT_S * 1e3}
FIRST_COME = {**TOLD, "order": "fcfs"}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests on a deployment.

    Args:
        name: what tables call it.
        machine: name of the deployment.
        lengths: of the requests.
        rate: about what ours holds, in requests per second.
        seconds: how long requests arrive.
        held: share of its requests that is in time at capacity.
        max_model_len: most tokens of a request.
        speculation: speculative decoding, which every engine does; None for none.
    """

    name: str
    machine: str
    lengths: LengthSource
    rate: float
    seconds: float
    held: float = 0.9
    max_model_len: int = MAX_MODEL_LEN
    speculation: Speculation | None = None

    @property
    def defaults(self) -> tuple[int, int]:
        """vLLM's own ``max_num_batched_tokens`` and ``max_num_seqs`` for a server on its GPU."""
        return DEFAULTS[self.machine]

    def limited(self, engine: EngineSettings) -> EngineSettings:
        """An engine of ours or a rival's, with vLLM's own ``max_num_seqs``."""
        return replace(engine, max_num_seqs=self.defaults[1])

    def run(self, part: str, engine: EngineSettings, rate: float, load: str) -> Run:
        """An engine at a rate."""
        traffic: Traffic = Synthetic(self.lengths, max(round(rate * self.seconds), 20))
        if engine.policy == "priority":
            traffic = ShortFirst(traffic)
        case, engine = f"{part}: {self.name}", replace(engine, speculation=self.speculation)
        run = Run(case, load, engine, self.machine, traffic, rate, OBJECTIVES, more=fingerprint)
        return replace(run, max_model_len=self.max_model_len)


A100, H100, EXPERTS = "a100-llama-3-8b", "h100-llama-3-8b", "h100-mixtral-8x7b-tp2"
EAGLE_S = 0.001
"""Seconds for a draft of EAGLE's on an A100: one layer of Llama-3-8B and its head are 1.5 GB of
weights, read at 1.5 TB/s."""
DEFAULTS = {A100: (2048, 256), H100: (8192, 1024), EXPERTS: (8192, 1024)}
LOADS = (
    Load("A100 ShareGPT-like", A100, LENGTHS["sharegpt"], 4.5, 60.0),
    Load("A100 conversation", A100, LENGTHS["conversation"], 11.0, 40.0),
    Load(f"A100 {DECODE_ONLY}", A100, SOURCES[DECODE_ONLY], 35.0, 15.0),
    Load(
        "H100 one prompt of 100K in a hundred chats", H100, LENGTHS["long-among-short"], 35.0, 50.0
    ),
    Load("H100 agentic (95% hits; 50K misses)", H100, LENGTHS["agentic"], 1.1, 120.0, 0.7),
    Load(
        "2 x H100, experts (Mixtral-8x7B), conversation",
        EXPERTS,
        LENGTHS["conversation"],
        35.0,
        30.0,
    ),
    Load(
        "H100 one prompt of 340K in three hundred chats",
        H100,
        LongAmongShort(every=300, num_prompt=340_000),
        30.0,
        40.0,
        max_model_len=360_000,
    ),
    Load(
        "A100 conversation, 3 drafts, 70% accepted",
        A100,
        LENGTHS["conversation"],
        11.0,
        40.0,
        speculation=Speculation(3, 0.7, draft_s=EAGLE_S),
    ),
)


@dataclass(frozen=True, slots=True)
class ShortFirst:
    """Traffic with vLLM's priorities by prompt length: what an operator can do without us."""

    traffic: Traffic
    most: tuple[int, ...] = (512, 2048, 8192)

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.traffic.name

    def at(self, rate: float, seed: int) -> Workload:
        """The workload at a mean rate."""
        workload = self.traffic.at(rate, seed)
        classes = tuple(QosClass(f"class {i}", priority=i) for i in range(len(self.most) + 1))
        class_of = np.searchsorted(self.most, workload.lengths.num_prompt)
        return replace(workload, classes=classes, class_of=class_of.astype(np.int64))


def fingerprint(report: Report) -> Figures:
    """What two runs have in common only if their batches were equal."""
    rows = report.per_request
    times = b"".join(values.tobytes() for values in (rows.ttft_s, rows.e2e_s, rows.max_gap_s))
    return {"times_sha256": sha256(times).hexdigest(), "tokens": report.num_tokens}


BUDGETS, SEATS = (256, 512, 1024, 2048), (64, 256)
"""And vLLM's own ``max_num_seqs``, where that is another one."""
THRESHOLDS = ((0, False), (256, False), (256, True))
"""``long_prefill_token_threshold``, and whether vLLM may raise it where there is room."""
INTERVALS = (1, 4) if Version(version("vllm")) >= Version("0.33") else (1,)
"""``prefill_schedule_interval``: before vLLM 0.33 it has no effect without data parallelism."""


def static(
    budget: int, seats: int, threshold: int, adaptive: bool, interval: int = 1
) -> EngineSettings:
    """Stock vLLM with static limits."""
    limits: dict[str, Any] = {"long_prefill_token_threshold": threshold}
    label = f"{budget}/{seats}/{threshold}"
    if adaptive:
        limits["long_prefill_token_threshold_adaptive"] = True
        label += " adaptive"
    if interval > 1:
        limits["prefill_schedule_interval"] = interval
        label += f" every {interval}"
    return EngineSettings(
        max_num_batched_tokens=budget, max_num_seqs=seats, engine_args=limits, label=label
    )


def statics(load: Load) -> list[EngineSettings]:
    """Every static setting of stock vLLM that an operator might try for a load."""
    seats = sorted({*SEATS, load.defaults[1]})
    return [
        static(budget, num_seqs, *threshold, interval)
        for budget, num_seqs, threshold, interval in product(BUDGETS, seats, THRESHOLDS, INTERVALS)
        if num_seqs <= budget  # vLLM refuses others
    ]


def stock(load: Load) -> EngineSettings:
    """Stock vLLM as it serves on that GPU if nobody sets anything."""
    budget, seats = load.defaults
    return replace(static(budget, seats, 0, False), label=f"stock default ({budget})")


def observed(load: Load) -> EngineSettings:
    """The same under our preset that only watches."""
    budget, seats = load.defaults
    return EngineSettings(
        "sarathi",
        {"preset": "observe"},
        max_num_batched_tokens=budget,
        max_num_seqs=seats,
        label="stock default, observed",
    )


BEST_STATIC, OURS = "stock, best static", "ours"


def by_priority(best: EngineSettings) -> EngineSettings:
    """The best static settings, short prompts first."""
    return replace(best, policy="priority", label=f"stock {best.name}, short prompts first")


def rivals(load: Load, best: EngineSettings) -> list[EngineSettings]:
    """The rivals; P-PAS is told the best static budget."""
    told = partial(rival, settings=TOLD)
    first_come = partial(rival, settings=FIRST_COME)
    of_tpot = Anchor.FIRST_TOKEN.value
    cap = min(best.max_num_batched_tokens, 2048)
    found = [
        first_come(PPas, "P-PAS", max_num_batched_tokens=2048, cap=cap),
        first_come(FairBatching, "FairBatching"),
        first_come(FairBatching, "FairBatching, TPOT from first token", anchor=of_tpot),
        told(QoServe, "QoServe"),
        told(QoServe, "QoServe, TPOT from first token", anchor=of_tpot),
        told(SlidingServe, "SlidingServe"),
        first_come(ComputeShare, "prefill share 0.4", max_num_batched_tokens=2048),
    ]
    return [load.limited(engine) for engine in found]


def of_ours(load: Load, **settings: Any) -> EngineSettings:
    """Ours, told the objectives."""
    return load.limited(ours(OURS, **TOLD, **settings))
