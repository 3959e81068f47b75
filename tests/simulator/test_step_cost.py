import json

import pytest

from vllm_sarathi.simulator import Deployment, StepCost, StepWork, deployment
from vllm_sarathi.simulator.machine.deployments import DEPLOYMENTS, on_gpus
from vllm_sarathi.simulator.machine.hardware import A100, LLAMA_2_70B


def test_a_cliff_costs_a_whole_tile():
    cost = deployment("a100-llama-3-8b").stages[0]
    assert cost.tokens_s(129) / cost.tokens_s(128) > 1.3
    assert cost.tokens_s(257) / cost.tokens_s(256) > 1.3


def test_time_is_the_table_plus_attention():
    cost = StepCost(((0, 1.0), (10, 1.0), (20, 2.0)), 0.5, 0.25, 0.125)
    assert cost.step_s(StepWork(15, 4.0, 8), num_sampled=2) == pytest.approx(1.5 + 2 + 2 + 0.25)


def test_beyond_the_table_time_goes_with_tokens():
    cost = StepCost(((0, 1.0), (10, 2.0)), 0, 0)
    assert cost.tokens_s(30) == pytest.approx(6.0)


@pytest.mark.parametrize("points", [((0, 1.0),), ((5, 1.0), (5, 2.0)), ((0, -1.0), (5, 1.0))])
def test_impossible_tables_are_refused(points):
    with pytest.raises(ValueError, match="token_points"):
        StepCost(points, 0, 0)


def test_negative_costs_are_refused():
    with pytest.raises(ValueError, match=r"decode_context_s=-1"):
        StepCost(((0, 1.0), (1, 1.0)), 0, -1)


def test_a_deployment_survives_json():
    made = deployment("a100-gpt-3-tp8-pp8")
    assert Deployment.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_deployment_has_room_for_prompts_and_prefills_slower_than_it_decodes(name):
    made = deployment(name)
    assert made.num_kv_tokens > made.max_model_len
    assert all(stage.tokens_s(1) < stage.tokens_s(2048) for stage in made.stages)


@pytest.mark.parametrize("model", [name[5:] for name in DEPLOYMENTS if name.startswith("a100-")])
@pytest.mark.parametrize("num_tokens", [1, 64, 512, 2048])
def test_newer_hardware_takes_less_time(model, num_tokens):
    work = StepWork(num_tokens, 1e6, 100_000)
    newer, older = deployment(f"h100-{model}"), deployment(f"a100-{model}")
    for new, old in zip(newer.stages, older.stages, strict=True):
        assert new.step_s(work, 1) < old.step_s(work, 1)


def test_stages_share_the_layers_evenly():
    whole, halves = deployment("a100-llama-3-8b"), deployment("a100-llama-3-8b", num_stages=2)
    assert len(halves.stages) == 2
    assert halves.stages[0].tokens_s(2048) == pytest.approx(
        whole.stages[0].tokens_s(2048) / 2, rel=0.05
    )


@pytest.mark.parametrize(
    ("tensor_parallel", "num_stages", "named"), [(8, 7, "num_stages=7"), (1, 1, "does not fit")]
)
def test_deployments_that_cannot_be_are_refused(tensor_parallel, num_stages, named):
    with pytest.raises(ValueError, match=named):
        on_gpus(A100, LLAMA_2_70B, tensor_parallel, num_stages)


def test_an_unknown_deployment_names_those_there_are():
    with pytest.raises(ValueError, match=r"'b100'.*a100-llama-3-8b"):
        deployment("b100")
