"""The loads of ``goodput.py``, what they ask, and what stock vLLM holds of them."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from support.goodput_runs import Bench, Run, Search, stock

from vllm_sarathi.simulator import (
    LENGTHS,
    Arrivals,
    CapacityGoal,
    EngineSettings,
    Fixed,
    Lengths,
    Objectives,
    QosClass,
    Synthetic,
    Workload,
)
from vllm_sarathi.simulator.load.traffic import LengthSource, Random

BUDGETS, SEATS, THRESHOLDS = (256, 512, 1024, 2048), (48, 64, 96, 128, 256), (0, 256)
STATICS = [stock(*setting) for setting in product(BUDGETS, SEATS, THRESHOLDS)]
STOCK_2048 = replace(stock(2048, 256, 0), label="stock 2048")
DECODE_ONLY = "decode-only (16 in, 512 out)"
SOURCES = {**LENGTHS, DECODE_ONLY: Fixed(16, 512)}
HELD = 0.9
NUM_FINALISTS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A load on a deployment and what it asks.

    Args:
        machine: name of the deployment.
        lengths: name of the requests' lengths.
        ttft_s: objective for the first token.
        tpot_s: objective for the mean time per later token.
        rate: about what a static budget holds, in requests per second.
        seconds: how long requests arrive.
    """

    machine: str
    lengths: str
    ttft_s: float
    tpot_s: float
    rate: float
    seconds: float

    @property
    def name(self) -> str:
        """What tables call it."""
        gpu = self.machine.split("-")[0].upper()
        return f"{gpu} {self.lengths} (TTFT {self.ttft_s:g} s, TPOT {self.tpot_s * 1e3:g} ms)"

    @property
    def objectives(self) -> Objectives:
        """Of every request."""
        return Objectives(ttft_s=self.ttft_s, tpot_s=self.tpot_s)

    @property
    def settings(self) -> dict[str, Any]:
        """Of our scheduler."""
        return {"ttft_slo_ms": self.ttft_s * 1e3, "tpot_slo_ms": self.tpot_s * 1e3}

    def run(self, part: str, engine: EngineSettings, rate: float, load: str) -> Run:
        """An engine at a rate."""
        traffic = Synthetic(SOURCES[self.lengths], round(rate * self.seconds))
        return Run(
            f"{part}: {self.name}", load, engine, self.machine, traffic, rate, self.objectives
        )


A100 = Case("a100-llama-3-8b", "sharegpt", 2.0, 0.050, 3.3, 120.0)
A100_CONVERSATION = Case("a100-llama-3-8b", "conversation", 2.0, 0.050, 5.0, 60.0)
A100_DECODES = Case("a100-llama-3-8b", DECODE_ONLY, 2.0, 0.025, 10.0, 60.0)
H100 = Case("h100-llama-3-8b", "conversation", 2.0, 0.025, 22.0, 60.0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What stock vLLM holds in a case.

    Args:
        rate: the highest rate at which ``HELD`` of the requests meet their objectives.
        best: the static settings that hold it.
        leaders: those that were tried.
    """

    rate: float
    best: EngineSettings
    leaders: tuple[EngineSettings, ...]


def capacity(bench: Bench, case: Case) -> Capacity:
    """Find it: all settings at one rate, then the best of them at their own limits."""
    leaders = sweep(bench, case, case.rate)
    goal = CapacityGoal(goodput=HELD, objectives=case.objectives)
    searches = [
        Search(case.run("search", engine, case.rate, f"{HELD:.0%} met"), goal) for engine in leaders
    ]
    found = [figures["capacity_rps"] for figures in bench.figures(searches)]
    rate = max(found)
    return Capacity(rate, leaders[found.index(rate)], leaders)


def sweep(bench: Bench, case: Case, rate: float) -> tuple[EngineSettings, ...]:
    """The static settings with the highest goodput at a rate. One seed."""
    runs = [case.run("sweep", engine, rate, f"{rate:.2f}/s") for engine in STATICS]
    goodput = [figures["goodput"] for figures in bench.figures(runs)]
    order = sorted(range(len(STATICS)), key=goodput.__getitem__, reverse=True)
    return tuple(STATICS[index] for index in order[:NUM_FINALISTS])


@dataclass(frozen=True, slots=True)
class Overload:
    """A rate that is far too high for a while, then low.

    Args:
        overload_s: how long it is high.
        after_s: how long it is low.
        high: requests arrive at so many times the rate.
        low: and at so many afterwards.
    """

    overload_s: float
    after_s: float
    high: float = 2.0
    low: float = 0.5

    @property
    def mean(self) -> float:
        """Mean of the multiples."""
        seconds = self.overload_s + self.after_s
        return (self.high * self.overload_s + self.low * self.after_s) / seconds

    def __call__(self, passed: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Relative rate when this share of the run has passed."""
        end = self.overload_s / (self.overload_s + self.after_s)
        return np.where(passed < end, self.high, self.low)

    def traffic(self, lengths: LengthSource, rate: float, classes: Any) -> Synthetic:
        """Requests whose mean rate is ``mean`` times the rate."""
        num = round(rate * self.mean * (self.overload_s + self.after_s))
        return Synthetic(lengths, num, Arrivals(shape=self), classes)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Requests of one kind among those of another.

    Args:
        short: most of them.
        long: the others.
        share_long: how many are of the other kind.
    """

    short: LengthSource
    long: LengthSource
    share_long: float

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.long.name}-among-{self.short.name}"

    def draw(self, num: int, random: Random) -> Lengths:
        """Draw so many requests' lengths."""
        is_long = random.random(num) < self.share_long
        short, long = self.short.draw(num, random), self.long.draw(int(is_long.sum()), random)
        prompt, output = short.num_prompt.copy(), short.num_output.copy()
        shared, prefix = np.zeros(num, np.int64), np.zeros(num, np.int64)
        prompt[is_long], output[is_long] = long.num_prompt, long.num_output
        if long.num_shared is not None and long.prefix is not None:
            shared[is_long], prefix[is_long] = long.num_shared, long.prefix
        return Lengths(prompt, output, num_shared=shared, prefix=prefix)


@dataclass(frozen=True, slots=True)
class ShortAndLong:
    """Requests whose class is by the length of their prompt.

    Args:
        lengths: what draws them.
        seconds: how long they arrive.
        least_long: prompt tokens of a long one.
    """

    lengths: LengthSource
    seconds: float
    least_long: int = 20_000

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.lengths.name

    def at(self, rate: float, seed: int) -> Workload:
        """The workload at a mean rate."""
        workload = Synthetic(self.lengths, round(rate * self.seconds)).at(rate, seed)
        is_long = workload.lengths.num_prompt >= self.least_long
        classes = (QosClass("short"), QosClass("long"))
        return replace(workload, classes=classes, class_of=is_long.astype(np.int64))
