"""A request without an adapter gets none, on CPUs."""

import torch
from vllm.lora.ops.torch_ops import bgmv_expand


def test_the_last_adapter_is_not_that_of_a_request_without_one() -> None:
    weights = torch.ones(2, 1, 4, 3)
    output = torch.zeros(2, 4)
    bgmv_expand(torch.ones(2, 3), weights, output, torch.tensor([0, -1]), add_inputs=True)
    assert output.tolist() == [[3.0] * 4, [0.0] * 4]
