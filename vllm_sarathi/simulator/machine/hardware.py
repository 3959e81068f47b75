"""GPUs and models, with the numbers that step costs are built from (``deployments``).

A stage's time is built from what was measured on one layer of a reference model:

- GEMMs, norms and activations: Vidur's published profiles (github.com/microsoft/vidur,
  data/profiling/compute, commits 41ab8ab1 and 683364e9), medians or means of
  ``attn_pre_proj + attn_rope + attn_post_proj + mlp_up_proj + mlp_act + mlp_down_proj
  + input_layernorm + post_attention_layernorm + 2 x add``. Another model's layer takes
  its share by parameters, since both the weights read and the arithmetic go with them.
- decode attention: KV bytes over memory bandwidth; prefill attention: FLOPs over the
  rate that FlashAttention's papers report.
- tensor parallelism: two all-reduces a layer, bytes over ring bandwidth.
"""

from dataclasses import dataclass

BYTES = 2  # of a bfloat16 weight, activation or cache entry


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer's shape, as in its Hugging Face config.json."""

    name: str
    num_layers: int
    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab: int
    gated_mlp: bool
    max_model_len: int

    @property
    def layer_params(self) -> int:
        """Weights of one layer."""
        attention = self.hidden * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return attention + (3 if self.gated_mlp else 2) * self.hidden * self.intermediate

    @property
    def kv_bytes(self) -> int:
        """Bytes that a token's keys and values take in one layer."""
        return 2 * self.num_kv_heads * self.head_dim * BYTES


LLAMA_3_8B = Model("llama-3-8b", 32, 4096, 14336, 32, 8, 128, 128256, True, 32768)
MISTRAL_7B = Model("mistral-7b", 32, 4096, 14336, 32, 8, 128, 32000, True, 32768)
LLAMA_2_70B = Model("llama-2-70b", 80, 8192, 28672, 64, 8, 128, 32000, True, 32768)
# GPT-3 has 96 layers; SARATHI (section 5.3) runs 12 of them on each of 8 stages.
GPT_3 = Model("gpt-3", 96, 12288, 49152, 96, 96, 128, 50257, False, 32768)


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator.

    Args:
        name: what deployments call it.
        memory_bytes: of one device (datasheet).
        bandwidth: bytes per second that reads of the KV cache reach.
        attention_flops: FLOP/s that prefill attention reaches.
        reference: the model whose layer was measured.
        layer_ms: (tokens, milliseconds) of that layer; cliffs where they were seen.
        ring_bandwidth: bytes per second of all-reduce traffic on a ring.
        ring_latency_s: of one all-reduce.
    """

    name: str
    memory_bytes: float
    bandwidth: float
    attention_flops: float
    reference: Model
    layer_ms: tuple[tuple[int, float], ...]
    ring_bandwidth: float
    ring_latency_s: float = 15e-6


# Datasheet: 80 GB, 2.04 TB/s (80 % reached), NVLink 600 GB/s (230 reached by NCCL's rings).
# FlashAttention-2 (arXiv 2307.08691, figure 4): about 190 TFLOP/s, causal, head 128.
# Layer: Vidur, Meta-Llama-3-8B on A100, one GPU.
A100 = Gpu(
    "a100",
    80e9,
    0.8 * 2.039e12,
    190e12,
    LLAMA_3_8B,
    (
        (0, 0.304),
        (8, 0.313),
        (16, 0.318),
        (32, 0.330),
        (64, 0.356),
        (65, 0.388),
        (96, 0.397),
        (128, 0.415),
        (129, 0.567),
        (136, 0.567),
        (160, 0.549),
        (192, 0.528),
        (193, 0.581),
        (256, 0.615),
        (257, 0.834),
        (304, 0.851),
        (384, 0.860),
        (385, 1.049),
        (448, 1.088),
        (512, 1.087),
        (513, 1.233),
        (1024, 2.150),
        (32768, 67.99),
    ),
    230e9,
)
# Datasheet (SXM): 80 GB, 3.35 TB/s (80 % reached), NVLink 900 GB/s (370 reached).
# FlashAttention-3 (arXiv 2407.08608, figure 5): about 450 TFLOP/s, causal, 1K to 2K keys.
# Layer: Vidur, Llama-2-70b on H100, one GPU. Past 512 tokens the profile's down
# projection flickers between 0.46 and 0.75 ms, so the cliff there, +28 %, and the points
# to 1024 follow the steadier projections.
H100 = Gpu(
    "h100",
    80e9,
    0.8 * 3.35e12,
    450e12,
    LLAMA_2_70B,
    (
        (0, 0.620),
        (64, 0.640),
        (128, 0.652),
        (129, 0.740),
        (160, 0.747),
        (192, 0.800),
        (256, 0.770),
        (257, 1.071),
        (288, 1.071),
        (289, 0.986),
        (448, 1.280),
        (512, 1.266),
        (513, 1.620),
        (768, 2.050),
        (1024, 2.720),
        (3584, 9.680),
        (4096, 10.82),
    ),
    370e9,
    10e-6,
)
