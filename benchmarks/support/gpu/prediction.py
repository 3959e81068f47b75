"""The simulator beside the server: the same requests through a deployment fitted to its steps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from support.gpu import goodput, model_error
from support.gpu.record import Figures, Record
from support.gpu.session import Job, apart
from support.gpu.setup import OBJECTIVES, Setup

from vllm_sarathi.simulator import Deployment, EngineSettings, Lengths, Workload, simulate
from vllm_sarathi.simulator.results.comparison import interval, paired_ratio
from vllm_sarathi.simulator.results.tables import table

PART = "simulator"
MEASURED, SIMULATED = "measured", "simulated"


def sessions(setup: Setup, record: Record) -> Iterator[Job]:
    """The loads of each server and seed."""
    loads: dict[tuple[str, str], list[Figures]] = {}
    for words, figures in record.of(goodput.PART):
        loads.setdefault((words[0], words[-1]), []).append(figures)
    costs = record.get(model_error.KEY)["deployment"]
    for (arm, seed), measured in loads.items():
        run = partial(simulated, settings(arm, setup), costs, measured)
        yield Job(f"{PART}, {arm}, {seed}", run)


def simulated(
    engine: EngineSettings, costs: Mapping[str, Any], measured: Sequence[Figures]
) -> Figures:
    """Share in time at each rate, measured and simulated."""
    shares = apart(shares_in_time, engine, costs, [of["requests"] for of in measured])
    real = [of[goodput.IN_TIME] for of in measured]
    return {"rates": [of["rate"] for of in measured], MEASURED: real, SIMULATED: shares}


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


def shares_in_time(
    engine: EngineSettings, costs: Mapping[str, Any], loads: Iterable[Mapping[str, Any]]
) -> list[float | None]:
    """Simulate each load; requests that the server failed are left out."""
    deployment = Deployment.from_json(costs)
    return [simulate(engine, deployment, workload(of)).goodput(OBJECTIVES) for of in loads]


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
        seeds = [figures for _, figures in record.of(PART, arm)]
        real, virtual = (
            [goodput.capacity(dict(zip(of["rates"], of[name], strict=True))) for of in seeds]
            for name in (MEASURED, SIMULATED)
        )
        off = [abs(np.subtract(of[SIMULATED], of[MEASURED])) for of in seeds]
        ratio = paired_ratio(virtual, real)
        rows.append([arm, interval(real), interval(virtual), ratio, float(np.mean(off))])
    head = (
        "server", "capacity, requests/s", "simulated", "simulated / measured",
        "mean difference of the share in time",
    )  # fmt: skip
    return (
        "The simulator gets each request at its time, and costs fitted to the steps of the part "
        f'"{model_error.PART}". It has no HTTP server.\n\n{table(head, rows)}'
    )
