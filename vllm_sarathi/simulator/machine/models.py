"""Models by name, or from the config.json of a Hugging Face folder."""

import json
from pathlib import Path

from vllm_sarathi.simulator.machine.layers import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    Model,
)

__all__ = ["MODELS", "Model", "read_model"]

# Of a request to any of them: their own limits range from 2048 to 163840.
MAX_MODEL_LEN = 32768


def _model(name: str, hidden: int, vocab: int, *layers: Layer) -> Model:
    return Model(name, hidden, vocab, layers, MAX_MODEL_LEN)


_SMALL = Layer(Attention(32, 8, 128), Mlp(14336))
_LARGE = Layer(Attention(64, 8, 128), Mlp(28672))
_LATENT = LatentAttention(128, 1536, 512, 128, 64, 128)
MODELS = {
    model.name: model
    for model in (
        _model("llama-3-8b", 4096, 128256, *[_SMALL] * 32),
        _model("llama-3-70b", 8192, 128256, *[_LARGE] * 80),
        _model("llama-2-70b", 8192, 32000, *[_LARGE] * 80),
        _model("mistral-7b", 4096, 32000, *[_SMALL] * 32),
        # GPT-3 has 96 layers; SARATHI (section 5.3) runs 12 of them on each of 8 stages.
        _model("gpt-3", 12288, 50257, *[Layer(Attention(96, 96, 128), Mlp(49152, False))] * 96),
        _model("mixtral-8x7b", 4096, 32000, *[Layer(_SMALL.attention, Experts(8, 2, 14336))] * 32),
        _model(
            "deepseek-v3", 7168, 129280,
            *[Layer(_LATENT, Mlp(18432), 8, 8)] * 3,
            *[Layer(_LATENT, Experts(256, 8, 2048, 2048), 8, 8)] * 58,
        ),
    )
}  # fmt: skip


def read_model(name_or_path: str) -> Model:
    """A model by name, or from a folder with a config.json, or from such a file.

    Raises:
        ValueError: there is none, or a key of it has a value that is not modelled.
    """
    if name_or_path in MODELS:
        return MODELS[name_or_path]
    path = Path(name_or_path)
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"model {name_or_path!r} is neither a config.json, nor a folder with one, nor one of "
            f"{', '.join(MODELS)}"
        )
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"model {name_or_path!r}: {file} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"model {name_or_path!r}: {file} must hold a JSON object")
    # It imports transformers, which takes seconds.
    from vllm_sarathi.simulator.machine.model_config import from_config

    name = file.resolve().parent.name if file.name == "config.json" else file.stem
    try:
        return from_config(name, fields)
    except (ValueError, TypeError, AttributeError) as error:  # also values of another type
        raise ValueError(f"model {name_or_path!r}: {error}") from error
