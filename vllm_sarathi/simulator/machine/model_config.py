"""A model's shape out of its Hugging Face config.json."""

import re
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING

from vllm_sarathi.simulator.machine.layers import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    Model,
)

# Families whose parameters were compared with what their authors publish.
FAMILIES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "granite"),
    *("olmo2", "smollm3", "cohere2", "seed_oss", "starcoder2"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe", "glm4_moe"),
    *("deepseek_v2", "deepseek_v3", "kimi_k2"),
)
ALIASES = {"kimi_k2": "deepseek_v3"}  # the same keys under another name
NOT_GATED = ("starcoder2",)
FULL, SLIDING = "full_attention", "sliding_attention"
DTYPES = ("bfloat16", "float16", "float32", None)  # vLLM runs float32 as bfloat16
# What a quantized checkpoint leaves in bfloat16 without its size changing much.
SMALL_MODULES = re.compile(r"lm_head|embed|norm|router|gate($|[^_])")

Fields = Mapping[str, Any]


def from_config(name: str, fields: Fields) -> Model:
    """The model that a config.json describes.

    Raises:
        ValueError: names a key, its value and what is allowed.
    """
    for key in fields:
        if key.endswith("_config") and key != "quantization_config" and fields[key]:
            raise ValueError(
                f"{key} is not modelled; allowed are models of text alone (of one that sees or "
                "hears too, save its text_config as a config.json)"
            )
    if fields.get("is_encoder_decoder"):
        raise ValueError("is_encoder_decoder=True is not modelled; it must be False")
    family = fields.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type={family!r} must be one of {', '.join(FAMILIES)}")
    fields = _with_defaults(family, fields)
    dtype = fields.get("torch_dtype") or fields.get("dtype")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be bfloat16, float16 or float32")
    attention_bits, mlp_bits = _weight_bits(fields.get("quantization_config") or {})
    layers = tuple(
        Layer(_attention(fields, i), _mlp(family, fields, i), attention_bits, mlp_bits)
        for i in range(_whole(fields, "num_hidden_layers"))
    )
    return Model(
        name,
        _whole(fields, "hidden_size"),
        _whole(fields, "vocab_size"),
        layers,
        _whole(fields, "max_position_embeddings"),
        is_tied=bool(fields.get("tie_word_embeddings")),
    )


def _with_defaults(family: str, fields: Fields) -> dict[str, Any]:
    """The fields, and the defaults of the family's own configuration class for the rest."""
    known = ALIASES.get(family, family)
    if known not in CONFIG_MAPPING:
        raise ValueError(f"model_type={family!r} needs a newer release of transformers")
    plain = {key: value for key, value in fields.items() if key != "quantization_config"}
    try:
        defaults = CONFIG_MAPPING[known].from_dict({**plain, "model_type": known}).to_dict()
    except Exception as error:  # each class checks its own fields in its own way
        raise ValueError(f"transformers refuses it: {error}") from error
    # A window that is not used is None in the defaults alone.
    own = {k: v for k, v in fields.items() if v is not None and k != "sliding_window"}
    return {**defaults, **own}


def _whole(fields: Fields, *keys: str) -> int:
    """The first of several keys that is there, which must be a whole number."""
    key = next((key for key in keys if fields.get(key) is not None), keys[0])
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key}={value!r} must be a whole number, 1 or more")
    return value


def _attention(fields: Fields, index: int) -> Attention | LatentAttention:
    num_heads = _whole(fields, "num_attention_heads")
    if fields.get("kv_lora_rank"):
        return LatentAttention(
            num_heads,
            fields.get("q_lora_rank"),
            _whole(fields, "kv_lora_rank"),
            _whole(fields, "qk_nope_head_dim"),
            _whole(fields, "qk_rope_head_dim"),
            _whole(fields, "v_head_dim"),
        )
    window = fields.get("sliding_window")
    kinds = fields.get("layer_types") or [SLIDING if window else FULL] * (index + 1)
    kind = kinds[index] if index < len(kinds) else None
    if kind not in (FULL, SLIDING):
        raise ValueError(
            f"layer_types[{index}]={kind!r} is not modelled; it must be {FULL} or {SLIDING}"
        )
    if fields.get("head_dim"):
        head_dim = _whole(fields, "head_dim")
    else:
        head_dim = _whole(fields, "hidden_size") // num_heads
    return Attention(
        num_heads,
        _whole(fields, "num_key_value_heads", "num_attention_heads"),
        head_dim,
        _whole(fields, "sliding_window") if kind == SLIDING else None,
    )


def _mlp(family: str, fields: Fields, index: int) -> Mlp | Experts:
    names = ("n_routed_experts", "num_experts", "num_local_experts")
    is_dense = not any(fields.get(name) for name in names) or (
        index < (fields.get("first_k_dense_replace") or 0)
        or index in (fields.get("mlp_only_layers") or ())
        or (index + 1) % (fields.get("decoder_sparse_step") or 1)
        or index % (fields.get("moe_layer_freq") or 1)
    )
    if is_dense:
        return Mlp(_whole(fields, "intermediate_size"), family not in NOT_GATED)
    intermediate = _whole(fields, "moe_intermediate_size", "intermediate_size")
    shared = (fields.get("n_shared_experts") or 0) * intermediate
    return Experts(
        _whole(fields, *names),
        _whole(fields, "num_experts_per_tok"),
        intermediate,
        shared or fields.get("shared_expert_intermediate_size") or 0,
    )


def _weight_bits(quantization: Fields) -> tuple[float, float]:
    """Bits of a weight in attention and in feed-forward networks, scales included."""
    if not quantization:
        return 16, 16
    method = quantization.get("quant_method")
    if method == "mxfp4":  # gpt-oss: experts alone, 32 values to a scale of 8 bits
        return 16, 4.25
    for module in quantization.get("modules_to_not_convert") or quantization.get("ignore") or ():
        if not SMALL_MODULES.search(module):
            raise ValueError(
                f"quantization_config leaves out {module!r}; allowed are all linear layers but "
                "the output's and the routers'"
            )
    if method == "fp8":
        return 8, 8
    if method in ("awq", "gptq"):
        bits = _packed_bits(quantization.get("bits"), quantization.get("group_size"))
        return bits, bits
    if method == "compressed-tensors":
        bits = _compressed_bits(quantization)
        return bits, bits
    raise ValueError(
        f"quantization_config.quant_method={method!r} must be one of fp8, awq, gptq, mxfp4, "
        "compressed-tensors"
    )


def _packed_bits(bits: Any, group_size: Any) -> float:
    """Weights of 4 bits, with a scale of 16 bits and a zero point to each group."""
    if bits != 4:
        raise ValueError(f"quantization_config has weights of {bits!r} bits; they must have 4")
    is_grouped = isinstance(group_size, int) and group_size > 0
    return 4 + (16 + 4) / group_size if is_grouped else 4


def _compressed_bits(quantization: Fields) -> float:
    groups = list((quantization.get("config_groups") or {}).values())
    form = quantization.get("format")
    if len(groups) != 1 or form not in ("float-quantized", "int-quantized", "pack-quantized"):
        raise ValueError(
            f"quantization_config format={form!r} with {len(groups)} config_groups must be "
            "float-quantized, int-quantized or pack-quantized with 1"
        )
    weights = groups[0].get("weights") or {}
    if form == "pack-quantized":
        return _packed_bits(weights.get("num_bits"), weights.get("group_size"))
    if weights.get("num_bits") != 8:
        raise ValueError(
            f"quantization_config has {form} weights of {weights.get('num_bits')!r} bits; they "
            "must have 8"
        )
    return 8
