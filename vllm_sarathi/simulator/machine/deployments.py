"""Deployments: step costs that follow from hardware and model, by name."""

import json
from pathlib import Path

from vllm_sarathi.simulator.machine.hardware import (
    A100,
    BYTES,
    GPT_3,
    H100,
    LLAMA_2_70B,
    LLAMA_3_8B,
    MISTRAL_7B,
    Gpu,
    Model,
)
from vllm_sarathi.simulator.machine.step_cost import Deployment, Overhead, StepCost

# The engine's CPU time, as measured for vLLM 0.32 on a 2-core machine of no great speed
# (12 and 6 us a request for schedule and update) and halved for a server's core. Input
# preparation overlaps the step before unless scheduling is synchronous.
SERVER_OVERHEAD = Overhead(200e-6, 6e-6, 100e-6, 3e-6, 800e-6)
# Share of a GPU's memory that vLLM fills (its default), and what is neither weights nor KV.
MEMORY_SHARE, ACTIVATION_BYTES = 0.9, 4e9
# Between stages: activations over a 200 Gbit/s InfiniBand port, as in SARATHI's cluster.
LINK_BANDWIDTH, LINK_LATENCY_S = 25e9, 20e-6


def stage_cost(gpu: Gpu, model: Model, num_layers: int, tensor_parallel: int) -> StepCost:
    """Cost of so many layers of a model, each split over so many GPUs."""
    share = model.layer_params / gpu.reference.layer_params / tensor_parallel
    ring_bytes = 2 * (tensor_parallel - 1) / tensor_parallel * model.hidden * BYTES
    reduces = 2 if tensor_parallel > 1 else 0
    reduce_token_s = reduces * ring_bytes / gpu.ring_bandwidth
    points = tuple(
        (
            tokens,
            num_layers * (ms * 1e-3 * share + reduces * gpu.ring_latency_s)
            + num_layers * tokens * reduce_token_s,
        )
        for tokens, ms in gpu.layer_ms
    )
    pair_flops = 4 * model.num_heads * model.head_dim / tensor_parallel
    return StepCost(
        token_points=points,
        chunk_context_s=num_layers * pair_flops / gpu.attention_flops,
        decode_context_s=num_layers * model.kv_bytes / tensor_parallel / gpu.bandwidth,
    )


def on_gpus(gpu: Gpu, model: Model, tensor_parallel: int = 1, num_stages: int = 1) -> Deployment:
    """A model on GPUs, ``tensor_parallel`` for each of ``num_stages`` pipeline stages.

    Raises:
        ValueError: the layers do not divide over the stages, or the weights do not fit.
    """
    if num_stages < 1 or model.num_layers % num_stages:
        raise ValueError(
            f"num_stages={num_stages} must divide the {model.num_layers} layers of {model.name}"
        )
    num_layers = model.num_layers // num_stages
    # The vocabulary's projection is read once a step, on the last stage.
    head_s = model.vocab * model.hidden * BYTES / tensor_parallel / gpu.bandwidth
    stage = stage_cost(gpu, model, num_layers, tensor_parallel)
    last = StepCost(
        tuple((tokens, time_s + head_s) for tokens, time_s in stage.token_points),
        stage.chunk_context_s,
        stage.decode_context_s,
        sampled_s=2e-6,
    )
    weights = (num_layers * model.layer_params + 2 * model.vocab * model.hidden) * BYTES
    free = gpu.memory_bytes * MEMORY_SHARE - weights / tensor_parallel - ACTIVATION_BYTES
    if free <= 0:
        raise ValueError(
            f"{model.name} does not fit: tensor_parallel={tensor_parallel} x num_stages="
            f"{num_stages} of {gpu.name} leave {free / 1e9:.1f} GB for the KV cache"
        )
    split = f"-tp{tensor_parallel}" * (tensor_parallel > 1) + f"-pp{num_stages}" * (num_stages > 1)
    return Deployment(
        name=f"{gpu.name}-{model.name}{split}",
        stages=(stage,) * (num_stages - 1) + (last,),
        num_kv_tokens=int(free / (num_layers * model.kv_bytes / tensor_parallel)),
        max_model_len=model.max_model_len,
        send_s=LINK_LATENCY_S if num_stages > 1 else 0.0,
        send_token_s=model.hidden * BYTES / LINK_BANDWIDTH if num_stages > 1 else 0.0,
        overhead=SERVER_OVERHEAD,
        source="Vidur profiles and datasheets: vllm_sarathi.simulator.machine.hardware",
    )


# name: GPU, model, tensor parallel size, pipeline stages
DEPLOYMENTS: dict[str, tuple[Gpu, Model, int, int]] = {
    "a100-llama-3-8b": (A100, LLAMA_3_8B, 1, 1),
    "h100-llama-3-8b": (H100, LLAMA_3_8B, 1, 1),
    "a100-mistral-7b": (A100, MISTRAL_7B, 1, 1),
    "h100-mistral-7b": (H100, MISTRAL_7B, 1, 1),
    "a100-llama-2-70b-tp4": (A100, LLAMA_2_70B, 4, 1),
    "h100-llama-2-70b-tp4": (H100, LLAMA_2_70B, 4, 1),
    "a100-llama-2-70b-tp8": (A100, LLAMA_2_70B, 8, 1),
    "h100-llama-2-70b-tp8": (H100, LLAMA_2_70B, 8, 1),
    "a100-gpt-3-tp8-pp8": (A100, GPT_3, 8, 8),
    "h100-gpt-3-tp8-pp8": (H100, GPT_3, 8, 8),
}


def deployment(name: str, num_stages: int | None = None) -> Deployment:
    """A deployment by name, or from the file that ``calibrate`` wrote.

    Args:
        name: one of ``DEPLOYMENTS``, or the path of a JSON file.
        num_stages: pipeline stages, over which the layers are split; None keeps the
            deployment's own number.

    Raises:
        ValueError: no such deployment or file, or the stages do not fit it.
    """
    if name in DEPLOYMENTS:
        gpu, model, tensor_parallel, stages = DEPLOYMENTS[name]
        return on_gpus(gpu, model, tensor_parallel, num_stages or stages)
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"deployment {name!r} is neither a file nor one of {', '.join(DEPLOYMENTS)}"
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
