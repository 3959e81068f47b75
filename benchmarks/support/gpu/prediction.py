"""The simulator beside the server: the same requests through a deployment fitted to its steps."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from support.gpu import goodput, model_error
from support.gpu.record import Figures, Record
from support.gpu.session import Job
from support.gpu.setup import OBJECTIVES, Setup

from vllm_sarathi.simulator import Deployment, EngineSettings, Lengths, Workload, simulate
from vllm_sarathi.simulator.results.comparison import interval, paired_ratio
from vllm_sarathi.simulator.results.tables import table

PART = "simulator"


def sessions(setup: Setup, record: Record) -> Iterator[Job]:
    """Each load that was measured, simulated."""
    for words, figures in list(record.of(goodput.PART)):
        key = ", ".join((PART, *words))
        yield Job(key, partial(simulated, setup, record, words[0], figures))


def simulated(setup: Setup, record: Record, arm: str, measured: Figures) -> Figures:
    """Share in time of the requests that the server was sent, at the times that it was."""
    costs = record.get(model_error.KEY)["deployment"]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        engine = settings(arm, setup)
        share = pool.submit(share_in_time, engine, costs, measured["requests"]).result()
    return {"rate": measured["rate"], goodput.IN_TIME: share}


def settings(arm: str, setup: Setup) -> EngineSettings:
    """An arm as the simulator sets it up."""
    ours = arm == goodput.OURS
    budget, max_num_seqs = (setup.settings[0] if ours else arm.split()[1]).split("/")
    return EngineSettings(
        "sarathi" if ours else "stock",
        goodput.asked() if ours else {},
        max_num_batched_tokens=int(budget),
        max_num_seqs=int(max_num_seqs),
        async_scheduling=setup.gpu is not None,
        v2_model_runner=setup.gpu is not None,
    )


def share_in_time(
    engine: EngineSettings, costs: Mapping[str, Any], requests: Mapping[str, Any]
) -> float | None:
    """Simulate; those that the server failed are left out."""
    load = workload(requests)
    return simulate(engine, Deployment.from_json(costs), load).goodput(OBJECTIVES)


def workload(requests: Mapping[str, Any]) -> Workload:
    """What the client saved, in order of arrival."""
    columns = (requests[name] for name in ("start_times", "input_lens", "output_lens", "errors"))
    served = sorted(each[:3] for each in zip(*columns, strict=True) if not each[3] and each[2])
    arrival_s, num_prompt, num_output = (np.array(column) for column in zip(*served, strict=True))
    lengths = Lengths(num_prompt.astype(np.int64), num_output.astype(np.int64))
    return Workload("measured", arrival_s.astype(float), lengths)


def tables(setup: Setup, record: Record) -> str:
    """Markdown: capacity of each server, and how far shares are off at each load."""
    rows = []
    for arm in dict.fromkeys(words[0] for words, _ in record.of(PART)):
        real = goodput.capacities(record.of(goodput.PART, arm))
        virtual = goodput.capacities(record.of(PART, arm))
        both = [seed for seed in real if seed in virtual]
        ratio = paired_ratio([virtual[seed] for seed in both], [real[seed] for seed in both])
        off = [
            abs(figures[goodput.IN_TIME] - record.get(key)[goodput.IN_TIME])
            for words, figures in record.of(PART, arm)
            if (key := ", ".join((goodput.PART, arm, *words))) in record
        ]
        cells = [interval(list(of.values())) for of in (real, virtual)]
        rows.append([arm, *cells, ratio, float(np.mean(off)) if off else None])
    head = (
        "server", "capacity, requests/s", "simulated", "simulated / measured",
        "mean difference of the share in time",
    )  # fmt: skip
    return (
        "The simulator gets each request at its time, and costs fitted to the steps of the part "
        f'"{model_error.PART}". It has no HTTP server.\n\n{table(head, rows)}'
    )
