"""Deployments by name."""

import json
from pathlib import Path

from vllm_sarathi.simulator.hardware import (
    A100,
    GPT_3,
    H100,
    LLAMA_2_70B,
    LLAMA_3_8B,
    MISTRAL_7B,
    Gpu,
    Model,
    deployment,
)
from vllm_sarathi.simulator.step_cost import Deployment

# name: GPU, model, tensor parallel size, pipeline stages
PRESETS: dict[str, tuple[Gpu, Model, int, int]] = {
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


def preset(name: str, num_stages: int | None = None) -> Deployment:
    """A deployment by name, or from the file that ``calibrate`` wrote.

    Args:
        name: one of ``PRESETS``, or the path of a JSON file.
        num_stages: pipeline stages, over which the layers spread anew; None as the
            preset has it.

    Raises:
        ValueError: no such preset or file, or the stages do not fit it.
    """
    if name in PRESETS:
        gpu, model, tensor_parallel, stages = PRESETS[name]
        return deployment(gpu, model, tensor_parallel, num_stages or stages)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"preset {name!r} is neither a file nor one of {', '.join(PRESETS)}")
    try:
        found = Deployment.from_json(json.loads(path.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"preset file {name!r} is not a deployment: {error!r}") from error
    if num_stages not in (None, len(found.stages)):
        raise ValueError(
            f"num_stages={num_stages} contradicts preset file {name!r}, which has "
            f"{len(found.stages)}"
        )
    return found
