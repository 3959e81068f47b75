"""GPUs, models, and the step costs that follow from them.

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

from vllm_sarathi.simulator.step_cost import Deployment, Overhead, StepCost

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
        name: what presets call it.
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


def deployment(gpu: Gpu, model: Model, tensor_parallel: int = 1, num_stages: int = 1) -> Deployment:
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
        source="vllm_sarathi.simulator.hardware: Vidur profiles, datasheets",
    )
