"""From a step log and options to what ``replay`` simulates."""

import argparse
from dataclasses import replace
from typing import Any

from vllm_sarathi.cli.engine_spec import parse_engine, with_objectives
from vllm_sarathi.cli.goals import measured, objectives
from vllm_sarathi.cli.options import checked
from vllm_sarathi.cli.tasks import Scenario
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.kv_room import IN_FLIGHT_TOKENS
from vllm_sarathi.simulator.load.recording import Recording
from vllm_sarathi.simulator.load.traffic import Replay
from vllm_sarathi.simulator.load.workload import NO_OBJECTIVES, Workload
from vllm_sarathi.simulator.machine.deployments import deployment
from vllm_sarathi.simulator.machine.step_cost import Deployment

# What the engine that recorded is called where it is simulated.
SAME = "same, simulated"
# Settings that say what requests may ask, and those that say where to write.
_ASKED = ("qos_classes", "client_objectives")
_OUTPUTS = ("step_log", "metrics_port", "metrics_host")


def check_words(options: argparse.Namespace) -> None:
    """Refuse wrong engines and objectives before a log is read, which may take long.

    Raises:
        ValueError: names the engine or the option, and what is allowed.
    """
    asked = measured(options)
    checked([with_objectives(parse_engine(word, {}), asked) for word in options.engines])


def scenario(options: argparse.Namespace, recording: Recording) -> Scenario:
    """What every engine faces: the requests of the recording, on the machine that it tells.

    Raises:
        ValueError: the log lacks what a deployment needs, or a request does not fit.
    """
    workload, asked = recording.workload(), objectives(options)
    if asked != NO_OBJECTIVES:
        classes = tuple(replace(qos, objectives=asked) for qos in workload.classes)
        workload = replace(workload, classes=classes)
    machine, noise = _machine(options, recording)
    workload.check_fits(
        machine.max_model_len,
        machine.num_kv_tokens,
        machine.kv_windows,
        block_size=recording.begin.block_size,
        in_flight_tokens=recording.begin.in_flight_tokens or IN_FLIGHT_TOKENS,
    )
    traffic = Replay(workload)
    return Scenario(machine, traffic, traffic.rate, len(workload), noise)


def _machine(options: argparse.Namespace, recording: Recording) -> tuple[Deployment, float]:
    """A deployment, and the noise of its steps."""
    if options.deployment:
        return deployment(options.deployment), 0.0
    # Half a second of imports, which a wrong argument need not wait for.
    from vllm_sarathi.simulator.machine.recorded import calibrated

    return calibrated(recording)


def engines(
    options: argparse.Namespace, recording: Recording, workload: Workload
) -> list[EngineSettings]:
    """The engine that recorded, then those that the words name: set up as it was, but for those.

    Our scheduler is told what its requests are measured by: by the options, else by the class of
    requests that name none.
    """
    asked = measured(options)
    if asked == NO_OBJECTIVES:
        asked = _default_objectives(workload)
    begun, own = _as_begun(recording), _own_settings(recording)
    num_seqs = recording.begin.max_num_seqs
    same = EngineSettings("sarathi", own, max_num_seqs=num_seqs, **begun, label=SAME)
    if own.get("preset") == "observe":
        same = replace(same, scheduler="stock", sarathi={})
    classes = {name: own[name] for name in _ASKED if name in own}
    named = []
    for word in options.engines:
        engine = parse_engine(word, {**begun, "label": word})
        if engine.max_num_seqs is None and num_seqs is not None:
            engine = replace(engine, max_num_seqs=min(num_seqs, engine.max_num_batched_tokens))
        if engine.scheduler == "sarathi":
            engine = replace(engine, sarathi={**classes, **engine.sarathi})
        named.append(with_objectives(engine, asked))
    if not recording.is_whole and not named:
        raise ValueError(
            f"step log {recording.name!r} lacks its beginning, which names the engine; "
            "name engines to simulate: replay STEPLOG ENGINE..."
        )
    return checked([same, *named] if recording.is_whole else named)


def _default_objectives(workload: Workload) -> Objectives:
    return next(
        (qos.objectives for qos in workload.classes if qos.name == "default"), NO_OBJECTIVES
    )


def _as_begun(recording: Recording) -> dict[str, Any]:
    """How vLLM was set up, as fields of ``EngineSettings``."""
    begin = recording.begin
    found = {
        "max_num_batched_tokens": begin.max_num_batched_tokens,
        "async_scheduling": begin.async_scheduling,
        "v2_model_runner": begin.v2_model_runner,
        "block_size": begin.block_size,
        "policy": begin.policy,
        "engine_args": {"long_prefill_token_threshold": begin.long_prefill_token_threshold},
    }
    return {name: value for name, value in found.items() if value is not None}


def _own_settings(recording: Recording) -> dict[str, Any]:
    """Settings of our scheduler that are not its defaults."""
    usual = SarathiConfig().model_dump(mode="json")
    return {
        name: value
        for name, value in recording.begin.settings.items()
        if name in usual and value != usual[name] and name not in _OUTPUTS
    }


def left_out(recording: Recording) -> dict[str, int]:
    """Requests that are not replayed, by why."""
    return {
        "running_before": recording.num_running_before,
        "unfinished": recording.num_unfinished,
        "shed": recording.num_shed,
    }


def notes(recording: Recording, scenario: Scenario, same: EngineSettings | None) -> str:
    """What the replay left out, and what the engine that recorded was."""
    why = {
        "running_before": "came before the log began",
        "unfinished": "had not ended when the log did, or were aborted before their first token",
        "shed": "were refused, and do not count in goodput",
    }
    lines = [f"{len(recording.requests):,} requests are replayed."]
    lines += [
        f"Left out: {num:,} that {why[kind]}." for kind, num in left_out(recording).items() if num
    ]
    if recording.num_aborted:
        lines.append(
            f"{recording.num_aborted:,} were aborted: they are replayed to their last token, and "
            "goodput counts them as served."
        )
    if recording.cached_share:
        lines.append(
            f"The prefix cache held {recording.cached_share:.0%} of the prompts' tokens: each "
            "prompt is replayed without those, under any settings, and they take no KV cache."
        )
    if recording.begin.num_spec_tokens:
        lines.append("Speculative decoding is not simulated: each step brings one token.")
    if recording.num_runs > 1:
        lines.append(f"The log holds {recording.num_runs} runs: this is the last one.")
    lines.append(f"Deployment {scenario.deployment.name!r}: {scenario.deployment.source}.")
    if same is not None:
        lines.append(f"{SAME}: {replace(same, label=None).name}.")
    return "\n".join(lines)
