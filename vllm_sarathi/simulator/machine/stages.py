"""What a pipeline stage of a model costs on a GPU.

Its time is built from

- GEMMs, norms and activations of each layer: measured (``profiles``) where GPU and model
  allow it, by a ``roofline`` otherwise;
- decode attention: KV bytes over memory bandwidth; prefill attention: FLOPs over the rate
  that FlashAttention's papers report;
- tensor parallelism: two all-reduces a layer, bytes over ring bandwidth.
"""

from collections import Counter

from vllm_sarathi.simulator.machine.gpus import Gpu
from vllm_sarathi.simulator.machine.layers import BYTES, Layer, Model
from vllm_sarathi.simulator.machine.roofline import TOKENS, layer_s
from vllm_sarathi.simulator.machine.step_cost import StepCost


def stage_layers(model: Model, num_stages: int) -> list[tuple[Layer, ...]]:
    """The layers of each stage, as vLLM splits them.

    Layers that remain go to the stages before the last, from the back.
    """
    each, remaining = divmod(len(model.layers), num_stages)
    found, start = [], 0
    for stage in range(num_stages):
        end = start + each + (num_stages - 1 - remaining <= stage < num_stages - 1)
        found.append(model.layers[start:end])
        start = end
    return found


def stage_cost(gpu: Gpu, model: Model, layers: tuple[Layer, ...], tensor_parallel: int) -> StepCost:
    """Cost of some layers of a model, each split over so many GPUs."""
    ring_bytes = 2 * (tensor_parallel - 1) / tensor_parallel * model.hidden * BYTES
    reduces = 2 if tensor_parallel > 1 else 0
    reduce_token_s = reduces * ring_bytes / gpu.ring_bandwidth
    kinds = Counter(layers)
    times = {layer: _times(gpu, model, layer, tensor_parallel) for layer in kinds}
    points = tuple(
        (
            tokens,
            sum(
                count * (times[layer][tokens] + reduces * gpu.ring_latency_s)
                + count * tokens * reduce_token_s
                for layer, count in kinds.items()
            ),
        )
        for tokens in times[layers[0]]
    )
    costs = {None: (0.0, 0.0)} | {layer.attention.window: (0.0, 0.0) for layer in kinds}
    for layer, count in kinds.items():
        chunk_s, decode_s = costs[layer.attention.window]
        added = _attention_s(gpu, model, layer, tensor_parallel, count)
        costs[layer.attention.window] = (chunk_s + added[0], decode_s + added[1])
    full = costs.pop(None)
    windowed = tuple((window, *seconds) for window, seconds in costs.items() if window)
    return StepCost(points, *full, windowed=windowed)


def _times(gpu: Gpu, model: Model, layer: Layer, tensor_parallel: int) -> dict[int, float]:
    """Seconds that a layer takes by number of tokens, attention over the context left out."""
    if gpu.profile is None or not model.is_dense_bf16:
        return {
            tokens: layer_s(gpu, layer, model.hidden, tensor_parallel, tokens) for tokens in TOKENS
        }
    share = layer.params(model.hidden) / gpu.profile.params / tensor_parallel
    return {tokens: ms * 1e-3 * share for tokens, ms in gpu.profile.layer_ms}


def _attention_s(
    gpu: Gpu, model: Model, layer: Layer, tensor_parallel: int, count: int
) -> tuple[float, float]:
    """Seconds of so many layers per query-key pair of a chunk, and per token a decode reads."""
    attention = layer.attention
    kv_bytes = attention.kv_values(tensor_parallel) * model.kv_bytes
    pair_flops = attention.prefill_pair_flops / tensor_parallel
    decode_flops = attention.decode_pair_flops / tensor_parallel
    read_s = count * kv_bytes / gpu.bandwidth
    return (
        count * pair_flops / gpu.attention_flops,
        max(read_s, count * decode_flops / gpu.attention_flops),
    )
