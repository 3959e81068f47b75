import json
from pathlib import Path

import pytest

from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.layers import Attention, Experts, Layer, Mlp
from vllm_sarathi.simulator.machine.roofline import ERROR, layer_s

RESULTS = Path(__file__).parents[3] / "benchmarks/results/roofline.json"
HIDDEN = 8192
DENSE = Layer(Attention(64, 8, 128), Mlp(28672))
EXPERTS = Layer(Attention(64, 8, 128), Experts(64, 4, 3584))


@pytest.mark.parametrize("name", ["a100", "h100"])
@pytest.mark.parametrize("num_tokens", [1, 64, 256, 512, 1024])
def test_a_roofline_is_near_the_layer_that_was_measured(name: str, num_tokens: int) -> None:
    gpu = GPUS[name]
    assert gpu.profile is not None
    share = DENSE.params(HIDDEN) / gpu.profile.params
    measured_s = dict(gpu.profile.layer_ms).get(num_tokens, gpu.profile.layer_ms[0][1])
    assert layer_s(gpu, DENSE, HIDDEN, 1, num_tokens) == pytest.approx(
        measured_s * 1e-3 * share, rel=0.25
    )


def test_a_batch_reads_only_the_experts_that_its_tokens_go_to() -> None:
    times = [layer_s(GPUS["h100"], EXPERTS, HIDDEN, 1, tokens) for tokens in (1, 8, 64, 512)]
    assert times == sorted(times)
    assert times[1] > 3 * times[0]  # a few tokens touch most of the experts they can
    assert times[3] < 1.5 * times[2]  # and then there are no more


def test_all_experts_are_touched_by_many_tokens_and_no_more_than_a_token_goes_to_by_one() -> None:
    experts = Experts(64, 4, 3584)
    assert experts.num_touched(1) == pytest.approx(4)
    assert experts.num_touched(1000) == pytest.approx(64)


@pytest.mark.parametrize(("name", "ratio"), [("h100", 0.55), ("a100", 1.0)])
def test_weights_of_8_bits_are_multiplied_faster_where_the_gpu_can(name: str, ratio: float) -> None:
    small = Layer(DENSE.attention, DENSE.mlp, 8, 8)
    whole_s, small_s = (layer_s(GPUS[name], layer, HIDDEN, 1, 8192) for layer in (DENSE, small))
    assert small_s / whole_s == pytest.approx(ratio, rel=0.1)


def test_weights_of_4_bits_are_read_faster_but_not_multiplied_faster() -> None:
    small = Layer(DENSE.attention, DENSE.mlp, 4, 4)
    few, many = (
        [layer_s(GPUS["a100"], layer, HIDDEN, 1, tokens) for layer in (small, DENSE)]
        for tokens in (1, 4096)
    )
    assert few[0] < 0.4 * few[1]
    assert many[0] == pytest.approx(many[1])


def test_the_stated_error_is_the_one_that_was_found() -> None:
    found = json.loads(RESULTS.read_text())["gpus"]
    medians = [f"{found[gpu]['median']:.0%}".replace("%", " %") for gpu in ("a100", "h100", "a40")]
    assert "{}, {} and {} off in the median".format(*medians) in ERROR
    worst = max(figures["worst"] for figures in found.values())
    assert f"{worst:.0%} at worst".replace("%", " %") in ERROR
