"""Bits of the weights of a quantized checkpoint, out of its ``quantization_config``."""

import re
from collections.abc import Mapping
from typing import Any

# What a quantized checkpoint leaves in bfloat16 without its size changing much.
SMALL_MODULES = re.compile(r"lm_head|embed|norm|router|gate($|[^_])")

Fields = Mapping[str, Any]


def weight_bits(quantization: Fields) -> tuple[float, float]:
    """Bits of a weight in attention and in feed-forward networks, scales included.

    Raises:
        ValueError: names a key, its value and what is allowed.
    """
    check_object(quantization, "quantization_config")
    if not quantization:
        return 16, 16
    method = quantization.get("quant_method")
    if method == "mxfp4":  # gpt-oss: experts alone, 32 values to a scale of 8 bits
        return 16, 4.25
    key = "modules_to_not_convert" if quantization.get("modules_to_not_convert") else "ignore"
    modules = quantization.get(key) or []
    if not isinstance(modules, list) or not all(isinstance(one, str) for one in modules):
        raise ValueError(f"quantization_config.{key}={modules!r} must be a list of names")
    for module in modules:
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
    by_name = quantization.get("config_groups") or {}
    check_object(by_name, "quantization_config.config_groups")
    groups = list(by_name.values())
    form = quantization.get("format")
    if len(groups) != 1 or form not in ("float-quantized", "int-quantized", "pack-quantized"):
        raise ValueError(
            f"quantization_config format={form!r} with {len(groups)} config_groups must be "
            "float-quantized, int-quantized or pack-quantized with 1"
        )
    check_object(groups[0], "a group of quantization_config.config_groups")
    weights = groups[0].get("weights") or {}
    check_object(weights, "weights of quantization_config.config_groups")
    if form == "pack-quantized":
        return _packed_bits(weights.get("num_bits"), weights.get("group_size"))
    if weights.get("num_bits") != 8:
        raise ValueError(
            f"quantization_config has {form} weights of {weights.get('num_bits')!r} bits; they "
            "must have 8"
        )
    return 8


def check_object(value: Any, name: str) -> None:
    """Refuse a value that is no JSON object.

    Raises:
        ValueError: names it.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}={value!r} must be a JSON object")
