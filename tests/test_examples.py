"""The example of a scheduler of one's own does what its text says."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from vllm_sarathi.cli.main import main
from vllm_sarathi.policy.state import RequestView
from vllm_sarathi.policy.step import StepView

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _examples_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def test_a_scheduler_of_ones_own_runs_in_the_simulator_by_its_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    load = ["--workload", "fixed:1000,10", "--requests", "20", "--at-once"]
    assert main(["simulate", "own_scheduler.AsyncBacklogAware", *load, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["finished_requests"] == 20


@pytest.mark.parametrize(("waiting", "batch"), [(300, 256), (4096, 768), (9000, 1024)])
def test_its_batches_grow_with_the_prefill_that_waits(waiting: int, batch: int) -> None:
    builder = import_module("own_scheduler").BacklogAware(256, 1024, min_prefill_tokens=16)
    prompt = RequestView("long", waiting)
    plan = builder.plan(StepView(8192, num_decodes=8, num_decode_tokens=8, prefills=(prompt,)))
    assert plan.num_decode_tokens == 8
    assert plan.num_decode_tokens + plan.num_prefill_tokens == batch
