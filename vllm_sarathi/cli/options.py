"""From command-line options to what the simulator takes."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from vllm_sarathi.cli.scheduler_spec import parse_scheduler, with_objective
from vllm_sarathi.cli.tasks import Scenario
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.engine.scheduler_factory import scheduler_class
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.goal import CapacityGoal
from vllm_sarathi.simulator.load.lengths import LENGTHS, Fixed, Zipf
from vllm_sarathi.simulator.load.trace import read_trace
from vllm_sarathi.simulator.load.traffic import (
    Arrivals,
    Diurnal,
    LengthSource,
    Ramp,
    Replay,
    Synthetic,
    Traffic,
)
from vllm_sarathi.simulator.load.workload import QosClass
from vllm_sarathi.simulator.machine.deployments import deployment, on_gpus
from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.models import read_model
from vllm_sarathi.simulator.machine.step_cost import Deployment, check_kv_tokens

DEFAULT_WORKLOAD = "conversation"
DEFAULT_DEPLOYMENT = "a100-llama-3-8b"
SHAPES = {"steady": None, "ramp": Ramp(), "diurnal": Diurnal()}
# What each of these options decides in place of others.
WITHOUT_EFFECT = {
    "trace": ("workload", "cv", "shape", "at_once"),
    "at_once": ("rate", "cv", "shape"),
    "deployment": ("model", "gpu", "tensor_parallel_size", "kv_cache_dtype"),
}
# What each of these options needs beside it.
ONLY_WITH = {
    "trace": ("trace_time_unit_s", "trace_hash_tokens"),
    "model": ("gpu", "tensor_parallel_size", "kv_cache_dtype"),
}


def seconds(milliseconds: float | None) -> float | None:
    """Milliseconds as seconds."""
    return None if milliseconds is None else milliseconds / 1e3


def objectives(options: argparse.Namespace) -> Objectives:
    """The objectives that every request has."""
    return Objectives(
        ttft_s=seconds(options.ttft_slo_ms),
        tpot_s=seconds(options.tpot_slo_ms),
        tbt_s=seconds(options.tbt_slo_ms),
    )


def lengths(name: str) -> LengthSource:
    """Lengths by the name that ``--workload`` gives them.

    Raises:
        ValueError: names the workload and what is allowed.
    """
    kind, _, detail = name.partition(":")
    try:
        if kind == "fixed":
            num_prompt, num_output = map(int, detail.split(","))
            return Fixed(num_prompt, num_output)
        if kind == "zipf" and detail:
            return Zipf(pd_ratio=float(detail))
    except ValueError:
        raise ValueError(
            f"--workload {name!r} must be fixed:PROMPT,OUTPUT or zipf:PD, numbers above 0"
        ) from None
    if name not in LENGTHS:
        raise ValueError(f"--workload {name!r} must be one of {', '.join(LENGTHS)} or fixed:P,D")
    return LENGTHS[name]


def refuse_without_effect(options: argparse.Namespace) -> None:
    """Refuse options that another one, or its absence, would leave without effect.

    Raises:
        ValueError: names the option and what it contradicts.
    """
    given = {name for name, value in vars(options).items() if not (value is None or value is False)}
    for name, others in WITHOUT_EFFECT.items():
        for other in others:
            if name in given and other in given:
                raise ValueError(f"{_flag(other)} has no effect beside {_flag(name)}")
    for needed, others in ONLY_WITH.items():
        for name in others:
            if name in given and needed not in given:
                raise ValueError(f"{_flag(name)} has no effect without {_flag(needed)}")


def check_outputs(options: argparse.Namespace) -> None:
    """See before a long run that its results can be written; makes the folder for pictures.

    Raises:
        ValueError: names the option, its value and what is allowed.
    """
    for name in ("json", "output"):
        path = getattr(options, name, None)
        if path in (None, "-"):
            continue
        file = Path(path).absolute()
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ValueError(
                f"{_flag(name)} {path!r} must be a file in a folder that can be written"
            )
    if getattr(options, "plots", None):
        try:
            Path(options.plots).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"--plots {options.plots!r} must be a folder ({error.strerror})"
            ) from error


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def traffic(options: argparse.Namespace) -> Traffic:
    """The load that the options describe.

    Raises:
        ValueError: names the option that is wrong or would have no effect.
    """
    refuse_without_effect(options)
    classes = ((QosClass(objectives=objectives(options)), 1.0),)
    if options.trace:
        recorded = read_trace(
            options.trace,
            options.requests,
            time_unit_s=options.trace_time_unit_s or 1.0,
            hash_tokens=options.trace_hash_tokens or 16,
        )
        return Replay(recorded, classes)
    return Synthetic(
        lengths(options.workload or DEFAULT_WORKLOAD),
        options.requests or 1000,
        Arrivals(1.0 if options.cv is None else options.cv, SHAPES[options.shape or "steady"]),
        classes,
        getattr(options, "at_once", False),
    )


def machine_of(options: argparse.Namespace) -> Deployment:
    """The deployment that the options describe.

    Raises:
        ValueError: names the option that is wrong or missing.
    """
    if not options.model:
        return deployment(options.deployment or DEFAULT_DEPLOYMENT, options.stages)
    if options.gpu not in GPUS:
        raise ValueError(f"--gpu {options.gpu!r} must be one of {', '.join(GPUS)} beside --model")
    model = read_model(options.model)
    if options.kv_cache_dtype == "fp8":
        model = model.with_fp8_kv()
    return on_gpus(GPUS[options.gpu], model, options.tensor_parallel_size or 1, options.stages or 1)


def scenario(options: argparse.Namespace) -> Scenario:
    """What every engine faces."""
    load, machine = traffic(options), machine_of(options)
    if options.max_model_len is not None:
        machine = replace(machine, max_model_len=options.max_model_len)
    check_kv_tokens(machine.num_kv_tokens, machine.max_model_len)
    rate = options.rate or (load.rate if isinstance(load, Replay) else 1.0)
    workload = load.at(rate, options.seed)
    workload.check_fits(machine.max_model_len, machine.num_kv_tokens)
    return Scenario(machine, load, rate, len(workload), options.noise, options.limit_s)


def goal(options: argparse.Namespace) -> CapacityGoal:
    """What has to hold within capacity."""
    wanted = objectives(options)
    if options.goodput is not None and wanted == Objectives():
        raise ValueError(
            "--goodput needs an objective: --ttft-slo-ms, --tpot-slo-ms or --tbt-slo-ms"
        )
    if options.goodput is not None:
        return CapacityGoal(None, options.delay_s, options.goodput, wanted)
    return CapacityGoal(wanted.tbt_s, options.delay_s, ttft_s=wanted.ttft_s, tpot_s=wanted.tpot_s)


def engines(options: argparse.Namespace, words: list[str]) -> list[EngineSettings]:
    """The engines that the words name; their classes and settings exist."""
    defaults = {"max_num_seqs": options.max_num_seqs, "async_scheduling": not options.sync}
    found = [
        with_objective(parse_scheduler(word, defaults), seconds(options.tbt_slo_ms))
        for word in words
    ]
    for engine in found:
        if engine.scheduler == "sarathi":
            SarathiConfig.from_mapping(engine.sarathi)
    for engine in found:
        if engine.scheduler not in ("stock", "sarathi"):  # this one may import vLLM
            scheduler_class(engine)
    named: dict[str, int] = {}
    unique = []
    for engine in found:
        named[engine.name] = count = named.get(engine.name, 0) + 1
        unique.append(engine if count == 1 else replace(engine, label=f"{engine.name} #{count}"))
    return unique
