"""Estimated time of a layer: what its weights take to read, or its arithmetic to do.

The constants were chosen on Vidur's profiles of dense models on the A100 and the H100,
split over 1 and 4 GPUs. benchmarks/roofline.py compares all their profiles with it, and
those of the A40, which had no part in the choice.
"""

from math import ceil

from vllm_sarathi.simulator.machine.gpus import Gpu
from vllm_sarathi.simulator.machine.layers import BYTES, Experts, LatentAttention, Layer

# Whatever the size, a kernel takes a few microseconds. The layers of the profiles have ten.
# Experts add routing, sorting and a second pair of GEMMs; latents their projections and norms;
# 8-bit GEMMs the quantization of what goes in.
KERNEL_S = 4e-6
KERNELS, EXPERT_KERNELS, LATENT_KERNELS, QUANTIZATION_KERNELS = 10, 8, 6, 4
# bfloat16 values that norms, activations and residuals read or write, for each value of a
# token's hidden state.
ELEMENTWISE_VALUES = 16
# GEMMs fill whole tiles of tokens: of 16 up to 128 tokens, of 128 beyond.
SMALL_TILE, TILE = 16, 128
# What the benchmark found: benchmarks/results/roofline.md.
ERROR = (
    "a dense bfloat16 model's layer is 4 %, 5 % and 10 % off in the median on the A100, H100 and "
    "A40, and 40 % at worst; experts, latent attention and quantized weights are unchecked"
)
# Where a step's time bends: both sides of a tile's end, and where experts are touched.
TOKENS = (
    *(0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96),
    *(edge for end in range(TILE, 2049, TILE) for edge in (end, end + 1)),
    *(4096, 8192, 16384),
)


def layer_s(gpu: Gpu, layer: Layer, hidden: int, tensor_parallel: int, num_tokens: int) -> float:
    """Seconds that a layer takes for so many tokens, attention over the context left out."""
    elementwise_s = num_tokens * hidden * ELEMENTWISE_VALUES * BYTES / gpu.bandwidth
    attention = layer.attention.params(hidden, tensor_parallel)
    attention_s = _gemm_s(gpu, attention, layer.attention_bits, num_tokens)
    mlp, bits = layer.mlp, layer.mlp_bits
    if not isinstance(mlp, Experts):
        mlp_s = _gemm_s(gpu, mlp.params(hidden) / tensor_parallel, bits, num_tokens)
        return _kernels_s(layer) + elementwise_s + attention_s + mlp_s
    shared_s = _gemm_s(gpu, mlp.shared_params(hidden) / tensor_parallel, bits, num_tokens)
    num_touched = mlp.num_touched(max(1, num_tokens))
    each = num_tokens * mlp.num_active / num_touched
    expert_s = _gemm_s(gpu, mlp.expert_params(hidden) / tensor_parallel, bits, each)
    experts_s = shared_s + num_touched * expert_s
    return _kernels_s(layer) + elementwise_s + attention_s + experts_s


def _kernels_s(layer: Layer) -> float:
    added = EXPERT_KERNELS * isinstance(layer.mlp, Experts)
    added += LATENT_KERNELS * isinstance(layer.attention, LatentAttention)
    added += QUANTIZATION_KERNELS * (layer.mlp_bits == 8)
    return (KERNELS + added) * KERNEL_S


def _gemm_s(gpu: Gpu, params: float, bits: float, num_tokens: float) -> float:
    flops = gpu.gemm_flops_8bit if bits == 8 and gpu.gemm_flops_8bit else gpu.gemm_flops
    tile = SMALL_TILE if num_tokens <= TILE else TILE
    read_s = params * bits / 8 / gpu.bandwidth
    return max(read_s, 2 * params * ceil(num_tokens / tile) * tile / flops)
