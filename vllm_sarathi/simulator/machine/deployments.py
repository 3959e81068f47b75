"""Deployments: step costs that follow from a GPU and a model."""

import json
import re
from dataclasses import replace
from pathlib import Path

from vllm_sarathi.simulator.machine.gpus import GPUS, Gpu
from vllm_sarathi.simulator.machine.kv_groups import kv_windows, layers_of_a_group
from vllm_sarathi.simulator.machine.layers import BYTES, Layer, Model
from vllm_sarathi.simulator.machine.models import MODELS
from vllm_sarathi.simulator.machine.roofline import ERROR
from vllm_sarathi.simulator.machine.stages import stage_cost, stage_layers
from vllm_sarathi.simulator.machine.step_cost import Deployment, Overhead, StepCost

# The engine's CPU time, as measured for vLLM 0.32 on a 2-core machine of no great speed
# (12 and 6 us a request for schedule and update) and halved for a server's core. Input
# preparation overlaps the step before unless scheduling is synchronous.
SERVER_OVERHEAD = Overhead(200e-6, 6e-6, 100e-6, 3e-6, 800e-6)
# Share of a GPU's memory that vLLM fills: less than its default (0.92 in vLLM 0.32), so that a
# plan's commands ask for it. And what is neither weights nor KV: less on a small GPU, for which
# vLLM chooses smaller batches.
MEMORY_SHARE, ACTIVATION_BYTES, ACTIVATION_SHARE = 0.9, 4e9, 0.05
# Between stages: activations over a 200 Gbit/s InfiniBand port, as in SARATHI's cluster.
LINK_BANDWIDTH, LINK_LATENCY_S = 25e9, 20e-6
# GPU-MODEL-tpN-ppN, the last two optional.
SPLIT = re.compile(r"(?P<model>.+?)(-tp(?P<tp>[1-9]\d*))?(-pp(?P<pp>[1-9]\d*))?")


def on_gpus(gpu: Gpu, model: Model, tensor_parallel: int = 1, num_stages: int = 1) -> Deployment:
    """A model on GPUs, ``tensor_parallel`` for each of ``num_stages`` pipeline stages.

    Raises:
        ValueError: it cannot be split so, or the weights do not fit.
    """
    _check_split(gpu, model, tensor_parallel, num_stages)
    parts = stage_layers(model, num_stages)
    costs = {part: stage_cost(gpu, model, part, tensor_parallel) for part in set(parts)}
    *stages, last = (costs[part] for part in parts)
    windows = kv_windows(model)
    num_kv_tokens = min(
        _num_kv_tokens(gpu, model, part, tensor_parallel, windows) for part in set(parts)
    )
    split = f"-tp{tensor_parallel}" * (tensor_parallel > 1) + f"-pp{num_stages}" * (num_stages > 1)
    if num_kv_tokens < 1:
        raise ValueError(
            f"{model.name} does not fit: tensor_parallel={tensor_parallel} x num_stages="
            f"{num_stages} of {gpu.name} leave no room for the KV cache beside its weights"
        )
    return Deployment(
        name=f"{gpu.name}-{model.name}{split}",
        stages=(*stages, _with_output(last, gpu, model, tensor_parallel)),
        num_kv_tokens=num_kv_tokens,
        max_model_len=model.max_model_len,
        send_s=LINK_LATENCY_S if num_stages > 1 else 0.0,
        send_token_s=model.hidden * BYTES / LINK_BANDWIDTH if num_stages > 1 else 0.0,
        overhead=SERVER_OVERHEAD,
        kv_windows=windows,
        source="measured: Vidur's profiles of a layer, and datasheets"
        if gpu.is_measured and model.is_dense_bf16
        else f"estimated: a roofline of datasheets ({ERROR})",
    )


def _with_output(last: StepCost, gpu: Gpu, model: Model, tensor_parallel: int) -> StepCost:
    """The last stage, where the vocabulary's projection is read once a step."""
    head_s = model.vocab * model.hidden * BYTES / tensor_parallel / gpu.bandwidth
    points = tuple((tokens, time_s + head_s) for tokens, time_s in last.token_points)
    return replace(last, token_points=points, sampled_s=2e-6)


def _check_split(gpu: Gpu, model: Model, tensor_parallel: int, num_stages: int) -> None:
    if not 1 <= tensor_parallel <= gpu.num_in_server:
        raise ValueError(
            f"tensor_parallel={tensor_parallel} must be 1 to {gpu.num_in_server}, the GPUs of a "
            f"server of {gpu.name}"
        )
    num_layers = len(model.layers)
    if not 1 <= num_stages <= num_layers:
        raise ValueError(
            f"num_stages={num_stages} must be 1 to {num_layers}, the layers of {model.name}"
        )
    for layer in set(model.layers):
        try:
            layer.attention.check_split(tensor_parallel)
        except ValueError as error:
            raise ValueError(f"{error} of {model.name}") from None


def _num_kv_tokens(
    gpu: Gpu,
    model: Model,
    layers: tuple[Layer, ...],
    tensor_parallel: int,
    windows: tuple[int | None, ...],
) -> int:
    """Tokens in the KV cache of a stage. Each is charged for the vocabulary, in and out."""
    tables = 1 if model.is_tied else 2
    weights = tables * model.vocab * model.hidden * BYTES / tensor_parallel
    weights += sum(layer.weight_bytes(model.hidden, tensor_parallel) for layer in layers)
    activations = min(ACTIVATION_BYTES, gpu.memory_bytes * ACTIVATION_SHARE)
    free = gpu.memory_bytes * MEMORY_SHARE - weights - activations
    values = max(layer.attention.kv_values(tensor_parallel) for layer in layers)
    block_layers = len(windows) * layers_of_a_group(windows, layers)
    return int(free / (block_layers * values * model.kv_bytes))


def named(name: str, num_stages: int | None = None) -> Deployment | None:
    """The deployment of a name such as "a100-llama-2-70b-tp4-pp2"; None if it is no such name."""
    for gpu in sorted(GPUS.values(), key=lambda gpu: -len(gpu.name)):
        split = SPLIT.fullmatch(name.removeprefix(f"{gpu.name}-"))
        if name.startswith(f"{gpu.name}-") and split and split["model"] in MODELS:
            stages = num_stages or int(split["pp"] or 1)
            return on_gpus(gpu, MODELS[split["model"]], int(split["tp"] or 1), stages)
    return None


def deployment(name: str, num_stages: int | None = None) -> Deployment:
    """A deployment by name, or from the file that ``calibrate`` wrote.

    Args:
        name: GPU-MODEL[-tpN][-ppN], with a name of ``GPUS`` and one of ``MODELS``, or the
            path of a JSON file.
        num_stages: pipeline stages, over which the layers are split; None keeps the
            deployment's own number.

    Raises:
        ValueError: no such deployment or file, or the stages do not fit it.
    """
    if found := named(name, num_stages):
        return found
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"deployment {name!r} is neither a file nor GPU-MODEL[-tpN][-ppN] with a GPU of "
            f"{', '.join(GPUS)} and a model of {', '.join(MODELS)}"
        )
    try:
        found = Deployment.from_json(json.loads(path.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"file {name!r} is not a deployment: {error!r}") from error
    if num_stages not in (None, len(found.stages)):
        raise ValueError(
            f"num_stages={num_stages} contradicts deployment file {name!r}, which has "
            f"{len(found.stages)}"
        )
    return found
