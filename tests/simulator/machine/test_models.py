import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.machine.configs import (
    DEEPSEEK_V3,
    GEMMA_3_1B,
    GPT_OSS_20B,
    LLAMA_3_8B,
    MISTRAL_7B,
    MIXTRAL,
    PUBLISHED,
)
from vllm_sarathi.simulator.machine.model_config import FAMILIES
from vllm_sarathi.simulator.machine.models import MODELS, Model, read_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, config: dict[str, Any]) -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    return read_model(str(folder))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_has_as_many_parameters_as_its_authors_publish(name: str, folder: Path) -> None:
    config, billions = PUBLISHED[name]
    assert read(folder, config).num_params == pytest.approx(billions * 1e9, rel=0.01)


def test_every_family_was_compared_with_what_is_published() -> None:
    assert {config["model_type"] for config, _ in PUBLISHED.values()} == set(FAMILIES)


@pytest.mark.parametrize(
    ("config", "token_bytes"),
    [
        (LLAMA_3_8B, 32 * 2 * 8 * 128 * 2),
        (MIXTRAL, 32 * 2 * 8 * 128 * 2),
        (DEEPSEEK_V3, 61 * (512 + 64) * 2),
        (GPT_OSS_20B, 24 * 2 * 8 * 64 * 2),
    ],
)
def test_a_token_takes_its_keys_and_values_or_its_latent(
    config: dict[str, Any], token_bytes: int, folder: Path
) -> None:
    model = read(folder, config)
    assert model.kv_token_bytes == token_bytes
    assert model.with_fp8_kv().kv_token_bytes * 2 == token_bytes


@pytest.mark.parametrize("name", ["llama-3-8b", "mixtral-8x7b", "deepseek-v3", "llama-3-70b"])
def test_a_model_by_name_is_the_published_one(name: str, folder: Path) -> None:
    published = {known.lower(): config for known, (config, _) in PUBLISHED.items()}
    config = read(folder, published[name])
    named = MODELS[name]
    assert (named.layers, named.hidden, named.vocab) == (config.layers, config.hidden, config.vocab)


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (LLAMA_3_8B, [None, None]),
        (MISTRAL_7B, [4096, 4096]),
        (GPT_OSS_20B, [128, None]),
        (GEMMA_3_1B, [512, 512, 512, 512, 512, None]),
        (PUBLISHED["Qwen2.5-7B"][0], [None, None]),
    ],
)
def test_layers_have_the_windows_that_the_model_has(
    config: dict[str, Any], windows: list[int | None], folder: Path
) -> None:
    layers = read(folder, config).layers
    assert [layer.attention.window for layer in layers[: len(windows)]] == windows


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "x.0.input_layernorm"]}, 8),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 4),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
                "ignore": ["lm_head"],
            },
            8,
        ),
    ],
)
def test_weights_have_the_bits_that_quantization_gives_them(
    quantization: dict[str, Any], bits: float, folder: Path
) -> None:
    layer = read(folder, {**LLAMA_3_8B, "quantization_config": quantization}).layers[0]
    assert layer.attention_bits == layer.mlp_bits == bits


def test_experts_alone_are_quantized_in_gpt_oss(folder: Path) -> None:
    layer = read(folder, GPT_OSS_20B).layers[0]
    assert (layer.attention_bits, layer.mlp_bits) == (16, 4.25)


def test_the_first_layers_of_deepseek_are_dense(folder: Path) -> None:
    kinds = [type(layer.mlp).__name__ for layer in read(folder, DEEPSEEK_V3).layers]
    assert kinds == ["Mlp"] * 3 + ["Experts"] * 58


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba2"}, "model_type='mamba2' must be one of llama"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder=True"),
        ({"model_type": "qwen3_next"}, "model_type='qwen3_next'"),
        ({"vision_config": {"hidden_size": 1}}, "vision_config is not modelled"),
        ({"layer_types": ["linear_attention"] * 32}, "linear_attention"),
        ({"torch_dtype": "float8_e4m3fn"}, "dtype='float8_e4m3fn' must be bfloat16"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "='bitsandbytes' must be one"),
        ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "weights of 3 bits"),
        (
            {"quantization_config": {"quant_method": "fp8", "ignore": ["a.0.self_attn.q_proj"]}},
            "leaves out 'a.0.self_attn.q_proj'",
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "format": "nvfp4"}},
            "format='nvfp4' with 0 config_groups",
        ),
        ({"quantization_config": "fp8"}, "model '.*"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be a whole number"),
        ({"hidden_size": "big"}, "hidden_size|big"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(
    changes: dict[str, Any], named: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=named):
        read(folder, {**LLAMA_3_8B, **changes})


def test_a_model_is_named_after_its_folder_or_file(tmp_path: Path) -> None:
    folder = tmp_path / "Llama-3.1-8B"
    folder.mkdir()
    assert read(folder, LLAMA_3_8B).name == "Llama-3.1-8B"
    assert read_model(str(folder / "config.json")).name == "Llama-3.1-8B"
    (tmp_path / "mine.json").write_text(json.dumps(LLAMA_3_8B))
    assert read_model(str(tmp_path / "mine.json")).name == "mine"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_config_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_model(str(tmp_path))


def test_an_unknown_model_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'llama-9'.*llama-3-8b"):
        read_model("llama-9")
