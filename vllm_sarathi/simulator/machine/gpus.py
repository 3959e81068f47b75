"""GPUs, with the numbers that step costs are built from (``deployments``).

Rates are what kernels reach, where that is known, and datasheet figures otherwise. FLOP
rates of datasheets are dense, without sparsity. Datasheets are the vendors' own, of the
SXM or OAM form where there are several.
"""

from dataclasses import dataclass, replace

from vllm_sarathi.simulator.machine import profiles
from vllm_sarathi.simulator.machine.profiles import Profile

# Shares of the datasheet's figures that kernels reach (``roofline`` says how far off they are).
BANDWIDTH_REACHED, GEMM_REACHED = 0.8, 0.7
# FP8 GEMMs on the H100: 1280 of 1979 TFLOP/s (SemiAnalysis, "MI300X vs H100 vs H200 Benchmark
# Part 1: Training", December 2024).
GEMM_REACHED_8BIT = 0.65
# FlashAttention-3 on the H100 (arXiv 2407.08608, figure 5), and of FlashAttention-2 less than
# what it reaches on the A100 (61 %).
ATTENTION_REACHED = 0.45
# NCCL's rings: 230 of 600 GB/s on the A100, 370 of 900 on the H100. Over PCIe without
# peer-to-peer, data passes through the host's memory, twice.
NVLINK_REACHED, PCIE_REACHED = 0.4, 0.2
PCIE_4 = 64e9


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator.

    Args:
        name: what deployments call it.
        memory_bytes: of one device (datasheet).
        bandwidth: bytes per second that reads of weights and KV cache reach.
        gemm_flops: FLOP/s that bfloat16 GEMMs reach.
        gemm_flops_8bit: as above, with weights and activations of 8 bits; None where there
            is no FP8: such weights are taken to be multiplied in bfloat16.
        attention_flops: FLOP/s that prefill attention reaches.
        ring_bandwidth: bytes per second of all-reduce traffic on a ring.
        ring_latency_s: of one all-reduce.
        num_in_server: GPUs of a usual server: tensor parallelism stays within it.
        profile: a layer that was measured on it.
    """

    name: str
    memory_bytes: float
    bandwidth: float
    gemm_flops: float
    gemm_flops_8bit: float | None
    attention_flops: float
    ring_bandwidth: float
    ring_latency_s: float = 15e-6
    num_in_server: int = 8
    profile: Profile | None = None

    @property
    def is_measured(self) -> bool:
        """Whether a layer was measured on it: dense models in bfloat16 follow from that."""
        return self.profile is not None


def from_datasheet(
    name: str,
    memory_bytes: float,
    bandwidth: float,
    flops: float,
    flops_8bit: float | None,
    ring_bandwidth: float,
    num_in_server: int = 8,
) -> Gpu:
    """A GPU of which no layer was measured."""
    return Gpu(
        name,
        memory_bytes,
        BANDWIDTH_REACHED * bandwidth,
        GEMM_REACHED * flops,
        None if flops_8bit is None else GEMM_REACHED_8BIT * flops_8bit,
        ATTENTION_REACHED * flops,
        ring_bandwidth,
        num_in_server=num_in_server,
    )


# 80 GB, 2.04 TB/s, 312 TFLOP/s, NVLink 600 GB/s (230 reached by NCCL's rings).
# FlashAttention-2 (arXiv 2307.08691, figure 4): about 190 TFLOP/s, causal, head 128.
A100 = Gpu(
    "a100", 80e9, BANDWIDTH_REACHED * 2.039e12, GEMM_REACHED * 312e12, None, 190e12, 230e9,
    profile=profiles.A100,
)  # fmt: skip
# 80 GB, 3.35 TB/s, 989 TFLOP/s, 1979 in FP8, NVLink 900 GB/s (370 reached).
# FlashAttention-3 (arXiv 2407.08608, figure 5): about 450 TFLOP/s, causal, 1K to 2K keys.
H100 = Gpu(
    "h100", 80e9, BANDWIDTH_REACHED * 3.35e12, GEMM_REACHED * 989e12,
    GEMM_REACHED_8BIT * 1979e12, 450e12, 370e9, 10e-6, profile=profiles.H100,
)  # fmt: skip

GPUS = {
    gpu.name: gpu
    for gpu in (
        A100,
        H100,
        # "NVIDIA A100 Tensor Core GPU" datasheet, 40GB SXM.
        from_datasheet("a100-40gb", 40e9, 1.555e12, 312e12, None, 230e9),
        # "NVIDIA H200 Tensor Core GPU" datasheet, SXM.
        from_datasheet("h200", 141e9, 4.8e12, 989e12, 1979e12, 370e9),
        # "NVIDIA HGX B200" datasheet; NVLink 5 has 1.8 TB/s.
        from_datasheet("b200", 180e9, 7.7e12, 2.25e15, 4.5e15, NVLINK_REACHED * 1.8e12),
        # "NVIDIA L4 Tensor Core GPU", "NVIDIA L40S" and "NVIDIA A10G" datasheets.
        from_datasheet("l4", 24e9, 300e9, 121e12, 242.5e12, PCIE_REACHED * PCIE_4, 4),
        from_datasheet("l40s", 48e9, 864e9, 362e12, 733e12, PCIE_REACHED * PCIE_4, 4),
        from_datasheet("a10g", 24e9, 600e9, 70e12, None, PCIE_REACHED * PCIE_4, 4),
        # "AMD Instinct MI300X" data sheet. GEMMs reach less of it: 620 of 1307 and 990 of 2615
        # TFLOP/s (SemiAnalysis, as above); RCCL's rings 310 GB/s (the threshold of Oracle's
        # check of new servers).
        replace(
            from_datasheet("mi300x", 192e9, 5.3e12, 1307e12, 2615e12, 310e9),
            gemm_flops=620e12, gemm_flops_8bit=990e12,
        ),
    )
}  # fmt: skip
