"""From command-line options to what the simulator takes."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vllm_sarathi.cli.scheduler_spec import parse_scheduler, with_objectives
from vllm_sarathi.cli.tasks import Scenario
from vllm_sarathi.cli.values import GOODPUT_KEYS
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
from vllm_sarathi.simulator.machine.models import Model, read_model
from vllm_sarathi.simulator.machine.step_cost import Deployment, check_kv_tokens

DEFAULT_WORKLOAD = "conversation"
GOODPUT_SHARE = 0.99
DEFAULT_DEPLOYMENT = "a100-llama-3-8b"
SHAPES = {"steady": None, "ramp": Ramp(), "diurnal": Diurnal()}
# What each of these options decides in place of others.
WITHOUT_EFFECT = {
    "trace": ("workload", "cv", "shape", "at_once"),
    "at_once": ("rate", "rates", "cv", "shape"),
    "rates": ("rate",),
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


def limits(options: argparse.Namespace) -> Objectives:
    """What the options limit by themselves, without ``--goodput``."""
    return Objectives(
        ttft_s=seconds(options.ttft_slo_ms),
        tpot_s=seconds(options.tpot_slo_ms),
        tbt_s=seconds(options.tbt_slo_ms),
    )


def objectives(options: argparse.Namespace) -> Objectives:
    """What every request has to meet to count for goodput.

    Raises:
        ValueError: a key of ``--goodput`` is given twice.
    """
    if not options.goodput:
        return limits(options)
    asked_ms = dict(options.goodput)
    if len(asked_ms) < len(options.goodput):
        given = " ".join(f"{key}:{ms:g}" for key, ms in options.goodput)
        raise ValueError(f"--goodput {given} must have each key once")
    ttft_s, tpot_s, e2e_s = (seconds(asked_ms.get(key)) for key in GOODPUT_KEYS)
    return Objectives(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)


def measured(options: argparse.Namespace) -> Objectives:
    """All that an engine is measured by: the tighter where two options limit the same."""
    both = limits(options), objectives(options)
    kinds = ("ttft_s", "tpot_s", "tbt_s", "e2e_s")
    found = {kind: [value for one in both if (value := getattr(one, kind))] for kind in kinds}
    return Objectives(**{kind: min(values) for kind, values in found.items() if values})


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
    """See before a long run that its results can be written; makes the folders for them.

    Raises:
        ValueError: names the option, its value and what is allowed.
    """
    for name in ("json", "csv", "output"):
        path = getattr(options, name, None)
        if path in (None, "-"):
            continue
        file = Path(path).absolute()
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ValueError(
                f"{_flag(name)} {path!r} must be a file in a folder that can be written"
            )
    for name in ("plots", "bench_json"):
        path = getattr(options, name, None)
        if not path:
            continue
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{_flag(name)} {path!r} must be a folder ({error.strerror})"
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
            time_unit_s=options.trace_time_unit_s,
            hash_tokens=options.trace_hash_tokens,
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
    num_gpus = options.tensor_parallel_size or 1
    return on_gpus(GPUS[options.gpu], model_of(options), num_gpus, options.stages or 1)


def model_of(options: argparse.Namespace) -> Model:
    """The model that the options name, with the data type of its KV cache."""
    model = read_model(options.model)
    return model.with_fp8_kv() if options.kv_cache_dtype == "fp8" else model


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


def scenarios(options: argparse.Namespace) -> list[Scenario]:
    """As ``scenario``, at each of several rates."""
    one = scenario(options)
    return [replace(one, rate=rate) for rate in options.rates or (one.rate,)]


def goal(options: argparse.Namespace) -> CapacityGoal:
    """What has to hold within capacity."""
    if options.goodput_share is not None and not options.goodput:
        raise ValueError(
            f"--goodput-share {options.goodput_share:g} has no effect without --goodput: give it "
            "objectives, e.g. --goodput ttft:2000 tpot:50"
        )
    own = limits(options)
    return CapacityGoal(
        own.tbt_s,
        options.delay_s,
        goodput=(options.goodput_share or GOODPUT_SHARE) if options.goodput else None,
        objectives=objectives(options) if options.goodput else None,
        ttft_s=own.ttft_s,
        tpot_s=own.tpot_s,
    )


def engines(options: argparse.Namespace, words: list[str]) -> list[EngineSettings]:
    """The engines that the words name; their classes and settings exist."""
    defaults = {"max_num_seqs": options.max_num_seqs, "async_scheduling": not options.sync}
    asked = measured(options)
    return checked([with_objectives(parse_scheduler(word, defaults), asked) for word in words])


def checked(found: Sequence[EngineSettings]) -> list[EngineSettings]:
    """Engines whose classes and settings exist, each with a name of its own."""
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


def seeds(options: argparse.Namespace) -> range:
    """Seeds of the runs. Without noise a recorded load is the same with every seed."""
    num_seeds = 1 if options.trace and not options.noise else options.seeds
    return range(options.seed, options.seed + num_seeds)
