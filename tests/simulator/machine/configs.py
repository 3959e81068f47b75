"""Shapes of published models, as in their config.json, and billions of parameters as published."""

from typing import Any

UNTIED = {"tie_word_embeddings": False, "torch_dtype": "bfloat16"}


def shape(
    model_type: str,
    layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    **others: Any,
) -> dict[str, Any]:
    """A config.json of so many layers."""
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 8192,
        **others,
    }


LLAMA_3_8B = shape("llama", 32, 4096, 14336, 32, 8, 128256)
MISTRAL_7B = shape("mistral", 32, 4096, 14336, 32, 8, 32000, sliding_window=4096)
MIXTRAL = shape(
    "mixtral", 32, 4096, 14336, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2,
    sliding_window=None,
)  # fmt: skip
GEMMA_3_1B = shape(
    "gemma3_text", 26, 1152, 6912, 4, 1, 262144, head_dim=256, sliding_window=512,
    sliding_window_pattern=6,
)  # fmt: skip
QWEN_2 = {"sliding_window": 65536, "use_sliding_window": False}
GPT_OSS_20B = shape(
    "gpt_oss", 24, 2880, 2880, 64, 8, 201088, head_dim=64, num_local_experts=32,
    num_experts_per_tok=4, sliding_window=128,
    layer_types=["sliding_attention", "full_attention"] * 12,
    quantization_config={
        "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
    },
)  # fmt: skip
LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
DEEPSEEK_V3 = shape(
    "deepseek_v3", 61, 7168, 18432, 128, 128, 129280, **LATENT, q_lora_rank=1536,
    moe_intermediate_size=2048, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
    first_k_dense_replace=3, moe_layer_freq=1,
    quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
)  # fmt: skip
KIMI_K2 = {
    **DEEPSEEK_V3, "model_type": "kimi_k2", "num_attention_heads": 64, "num_key_value_heads": 64,
    "n_routed_experts": 384, "first_k_dense_replace": 1, "vocab_size": 163840,
}  # fmt: skip

PUBLISHED: dict[str, tuple[dict[str, Any], float]] = {
    "Llama-3-8B": (LLAMA_3_8B, 8.03),
    "Llama-3-70B": (shape("llama", 80, 8192, 28672, 64, 8, 128256), 70.6),
    "Mistral-7B": (MISTRAL_7B, 7.24),
    "Qwen2.5-7B": (shape("qwen2", 28, 3584, 18944, 28, 4, 152064, **QWEN_2, **UNTIED), 7.62),
    "Qwen3-8B": (shape("qwen3", 36, 4096, 12288, 32, 8, 151936, head_dim=128, **UNTIED), 8.19),
    "gemma-7b": (shape("gemma", 28, 3072, 24576, 16, 16, 256000, head_dim=256), 8.54),
    "gemma-2-9b": (shape("gemma2", 42, 3584, 14336, 16, 8, 256000, head_dim=256), 9.24),
    "gemma-3-1b": (GEMMA_3_1B, 1.0),
    "Phi-3-mini": (
        shape("phi3", 32, 3072, 8192, 32, 32, 32064, sliding_window=2047, **UNTIED), 3.82,
    ),
    "granite-3.1-8b": (
        shape("granite", 40, 4096, 12800, 32, 8, 49155, tie_word_embeddings=True), 8.17,
    ),
    "OLMo-2-7B": (shape("olmo2", 32, 4096, 11008, 32, 32, 100352, **UNTIED), 7.3),
    "SmolLM3-3B": (
        shape("smollm3", 36, 2048, 11008, 16, 4, 128256, tie_word_embeddings=True), 3.08,
    ),
    "c4ai-command-r7b": (shape("cohere2", 32, 4096, 14336, 32, 8, 256000), 8.03),
    "Seed-OSS-36B": (
        shape("seed_oss", 64, 5120, 27648, 80, 8, 155136, head_dim=128, **UNTIED), 36,
    ),
    "starcoder2-15b": (
        shape(
            "starcoder2", 40, 6144, 24576, 48, 4, 49152, bos_token_id=0, eos_token_id=0, **UNTIED,
        ),
        16,
    ),
    "Mixtral-8x7B": (MIXTRAL, 46.7),
    "Qwen2-57B-A14B": (
        shape(
            "qwen2_moe", 28, 3584, 18944, 28, 4, 151936, num_experts=64, num_experts_per_tok=8,
            moe_intermediate_size=2560, shared_expert_intermediate_size=20480, **QWEN_2, **UNTIED,
        ),
        57.4,
    ),
    "Qwen3-30B-A3B": (
        shape(
            "qwen3_moe", 48, 2048, 6144, 32, 4, 151936, head_dim=128, num_experts=128,
            num_experts_per_tok=8, moe_intermediate_size=768, mlp_only_layers=[], **UNTIED,
        ),
        30.5,
    ),
    "gpt-oss-20b": (GPT_OSS_20B, 20.9),
    "OLMoE-1B-7B": (
        shape("olmoe", 16, 2048, 1024, 16, 16, 50304, num_experts=64, num_experts_per_tok=8), 6.92,
    ),
    "GLM-4.5-Air": (
        shape(
            "glm4_moe", 46, 4096, 10944, 96, 8, 151552, head_dim=128, n_routed_experts=128,
            n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=1408,
            first_k_dense_replace=1, **UNTIED,
        ),
        106,
    ),
    "DeepSeek-V2-Lite": (
        shape(
            "deepseek_v2", 27, 2048, 10944, 16, 16, 102400, **LATENT, q_lora_rank=None,
            n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
            moe_intermediate_size=1408, first_k_dense_replace=1, **UNTIED,
        ),
        15.7,
    ),
    "DeepSeek-V3": (DEEPSEEK_V3, 671),
    "Kimi-K2": (KIMI_K2, 1026),
}  # fmt: skip
