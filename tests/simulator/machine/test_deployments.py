import json
from dataclasses import replace
from pathlib import Path

import pytest

from vllm_sarathi.simulator import Deployment, StepWork, deployment
from vllm_sarathi.simulator.machine.deployments import on_gpus
from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.layers import Attention
from vllm_sarathi.simulator.machine.models import MODELS
from vllm_sarathi.simulator.machine.stages import stage_layers

MEASURED = json.loads((Path(__file__).parent / "measured.json").read_text())
NAMES = (
    *("a100-llama-3-8b", "h100-llama-3-8b", "a100-mistral-7b", "h100-mistral-7b"),
    *("a100-llama-2-70b-tp4", "h100-llama-2-70b-tp4", "h100-llama-2-70b-tp8"),
    *("a100-gpt-3-tp8-pp8", "h100-gpt-3-tp8-pp8"),
    *("l4-llama-3-8b", "a100-40gb-mistral-7b", "a10g-llama-3-8b-tp4", "mi300x-mixtral-8x7b"),
    *("h200-deepseek-v3-tp8", "b200-deepseek-v3-tp8-pp2", "l40s-llama-3-8b-tp2"),
)


@pytest.mark.parametrize("pinned", MEASURED, ids=lambda pinned: str(pinned["name"]))
def test_measured_deployments_are_what_results_were_made_with(pinned: dict[str, object]) -> None:
    made = deployment(str(pinned["name"]))
    assert made == replace(Deployment.from_json(pinned), source=made.source)
    assert made.source.startswith("measured")


def test_a_deployment_survives_json() -> None:
    made = deployment("a100-gpt-3-tp8-pp8")
    assert Deployment.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize("name", NAMES)
def test_a_deployment_has_its_name_and_prefills_slower_than_it_decodes(name: str) -> None:
    made = deployment(name)
    assert made.name == name
    assert made.num_kv_tokens > 0
    assert all(stage.tokens_s(1) < stage.tokens_s(2048) for stage in made.stages)


@pytest.mark.parametrize("model", ["llama-3-8b", "llama-2-70b-tp4", "mixtral-8x7b-tp2"])
@pytest.mark.parametrize(("newer", "older"), [("h100", "a100"), ("b200", "h200")])
@pytest.mark.parametrize("num_tokens", [1, 64, 512, 2048])
def test_newer_hardware_takes_less_time(
    model: str, newer: str, older: str, num_tokens: int
) -> None:
    work = StepWork(num_tokens, 1e6, 100_000)
    new, old = (deployment(f"{gpu}-{model}").stages[0] for gpu in (newer, older))
    assert new.step_s(work, 1) < old.step_s(work, 1)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a100-llama-3-70b-tp4", "measured"),
        ("a100-mixtral-8x7b-tp2", "estimated"),
        ("h200-llama-3-8b", "estimated"),
        ("a100-40gb-llama-3-8b", "estimated"),
    ],
)
def test_a_source_says_whether_a_layer_was_measured(name: str, source: str) -> None:
    assert deployment(name).source.startswith(source)


def test_stages_share_the_layers_evenly() -> None:
    whole, halves = deployment("a100-llama-3-8b"), deployment("a100-llama-3-8b", num_stages=2)
    assert len(halves.stages) == 2
    assert halves.stages[0].tokens_s(2048) == pytest.approx(
        whole.stages[0].tokens_s(2048) / 2, rel=0.05
    )


@pytest.mark.parametrize(
    ("num_stages", "sizes"), [(1, [61]), (2, [31, 30]), (4, [15, 15, 16, 15]), (3, [20, 21, 20])]
)
def test_layers_that_remain_go_before_the_last_stage_as_in_vllm(
    num_stages: int, sizes: list[int]
) -> None:
    assert [len(part) for part in stage_layers(MODELS["deepseek-v3"], num_stages)] == sizes


def test_gpus_share_heads_and_each_keeps_the_whole_latent() -> None:
    latent_s = 61 * (512 + 64) * 2 / GPUS["b200"].bandwidth
    latent = deployment("b200-deepseek-v3-tp8").stages[0]
    assert latent.decode_context_s == pytest.approx(latent_s)
    half, quarter = (deployment(f"b200-llama-2-70b-tp{size}").stages[0] for size in (2, 4))
    assert half.decode_context_s == pytest.approx(2 * quarter.decode_context_s)


@pytest.mark.parametrize(
    ("gpu", "model", "tensor_parallel", "num_stages", "named"),
    [
        ("a100", "llama-2-70b", 8, 81, "num_stages=81 must be 1 to 80"),
        ("a100", "llama-2-70b", 1, 1, "llama-2-70b does not fit"),
        ("l4", "llama-3-70b", 4, 1, "of l4 leave no room"),
        ("h100", "llama-3-8b", 16, 1, "tensor_parallel=16 must be 1 to 8"),
        ("l4", "llama-3-8b", 8, 1, "tensor_parallel=8 must be 1 to 4"),
        ("a100", "llama-3-8b", 3, 1, "tensor_parallel=3 must divide num_heads=32"),
        ("h200", "deepseek-v3", 7, 1, "tensor_parallel=7 must divide num_heads=128"),
    ],
)
def test_deployments_that_cannot_be_are_refused(
    gpu: str, model: str, tensor_parallel: int, num_stages: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        on_gpus(GPUS[gpu], MODELS[model], tensor_parallel, num_stages)


@pytest.mark.parametrize("name", ["b100", "a100-llama-9", "h100-llama-3-8b-tp0"])
def test_an_unknown_deployment_names_gpus_and_models(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}'.*a100.*llama-3-8b"):
        deployment(name)


def test_layers_with_a_window_read_less_and_have_room_for_all() -> None:
    full = MODELS["llama-3-8b"]
    layer = full.layers[0]
    windowed = replace(layer, attention=Attention(32, 8, 128, window=1024))
    mixed = replace(full, layers=(layer, windowed) * 16)
    both, few = on_gpus(GPUS["h100"], full), on_gpus(GPUS["h100"], mixed)
    short, long = StepWork(8, 0, 8 * 1024), StepWork(8, 0, 8 * 16384)
    assert few.stages[0].step_s(short, 8) == pytest.approx(both.stages[0].step_s(short, 8))
    assert few.stages[0].step_s(long, 8) < 0.8 * both.stages[0].step_s(long, 8)
    assert few.num_kv_tokens == both.num_kv_tokens


def test_a_kv_cache_of_fp8_holds_twice_the_tokens() -> None:
    model = MODELS["llama-3-8b"]
    auto, fp8 = (on_gpus(GPUS["l4"], kind) for kind in (model, model.with_fp8_kv()))
    assert fp8.num_kv_tokens == pytest.approx(2 * auto.num_kv_tokens, abs=1)
    assert fp8.name == "l4-llama-3-8b-fp8-kv"
