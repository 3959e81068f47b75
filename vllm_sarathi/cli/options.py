"""From command-line options to what the simulator takes."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from vllm_sarathi.cli.checks import refuse_without_effect
from vllm_sarathi.cli.engine_spec import parse_engine, with_objectives
from vllm_sarathi.cli.goals import measured, objectives
from vllm_sarathi.cli.tasks import Scenario
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.simulator.engine.scheduler_factory import scheduler_class
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.kv_room import check_kv_tokens
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
from vllm_sarathi.simulator.machine.step_cost import Deployment

DEFAULT_WORKLOAD = "conversation"
DEFAULT_DEPLOYMENT = "a100-llama-3-8b"
SHAPES = {"steady": None, "ramp": Ramp(), "diurnal": Diurnal()}


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
        raise ValueError(
            f"--workload {name!r} must be one of {', '.join(LENGTHS)}, zipf:PD or "
            "fixed:PROMPT,OUTPUT"
        )
    return LENGTHS[name]


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
    check_kv_tokens(machine.num_kv_tokens, machine.max_model_len, machine.kv_windows)
    rate = options.rate or (load.rate if isinstance(load, Replay) else 1.0)
    workload = load.at(rate, options.seed)
    workload.check_fits(machine.max_model_len, machine.num_kv_tokens, machine.kv_windows)
    return Scenario(machine, load, rate, len(workload), options.noise, options.limit_s)


def scenarios(options: argparse.Namespace) -> list[Scenario]:
    """As ``scenario``, at each of several rates."""
    one = scenario(options)
    return [replace(one, rate=rate) for rate in options.rates or (one.rate,)]


def engines(options: argparse.Namespace, words: list[str]) -> list[EngineSettings]:
    """The engines that the words name; their classes and settings exist."""
    defaults = {"max_num_seqs": options.max_num_seqs, "async_scheduling": not options.sync}
    asked = measured(options)
    return checked([with_objectives(parse_engine(word, defaults), asked) for word in words])


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


def seeds_of(options: argparse.Namespace) -> range:
    """Seeds of the runs. Without noise a recorded load is the same with every seed."""
    num_seeds = 1 if options.trace and not options.noise else options.seeds
    return range(options.seed, options.seed + num_seeds)
