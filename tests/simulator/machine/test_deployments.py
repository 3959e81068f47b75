import json

import pytest

from vllm_sarathi.simulator import Deployment, StepWork, deployment
from vllm_sarathi.simulator.machine.deployments import DEPLOYMENTS, on_gpus
from vllm_sarathi.simulator.machine.hardware import A100, LLAMA_2_70B


def test_a_deployment_survives_json() -> None:
    made = deployment("a100-gpt-3-tp8-pp8")
    assert Deployment.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_deployment_has_room_for_prompts_and_prefills_slower_than_it_decodes(
    name: str,
) -> None:
    made = deployment(name)
    assert made.num_kv_tokens > made.max_model_len
    assert all(stage.tokens_s(1) < stage.tokens_s(2048) for stage in made.stages)


@pytest.mark.parametrize("model", [name[5:] for name in DEPLOYMENTS if name.startswith("a100-")])
@pytest.mark.parametrize("num_tokens", [1, 64, 512, 2048])
def test_newer_hardware_takes_less_time(model: str, num_tokens: int) -> None:
    work = StepWork(num_tokens, 1e6, 100_000)
    newer, older = deployment(f"h100-{model}"), deployment(f"a100-{model}")
    for new, old in zip(newer.stages, older.stages, strict=True):
        assert new.step_s(work, 1) < old.step_s(work, 1)


def test_stages_share_the_layers_evenly() -> None:
    whole, halves = deployment("a100-llama-3-8b"), deployment("a100-llama-3-8b", num_stages=2)
    assert len(halves.stages) == 2
    assert halves.stages[0].tokens_s(2048) == pytest.approx(
        whole.stages[0].tokens_s(2048) / 2, rel=0.05
    )


@pytest.mark.parametrize(
    ("tensor_parallel", "num_stages", "named"), [(8, 7, "num_stages=7"), (1, 1, "does not fit")]
)
def test_deployments_that_cannot_be_are_refused(
    tensor_parallel: int, num_stages: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        on_gpus(A100, LLAMA_2_70B, tensor_parallel, num_stages)


def test_an_unknown_deployment_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'b100'.*a100-llama-3-8b"):
        deployment("b100")
