from pathlib import Path

from vllm_sarathi.metrics.step_log import own_path


def test_one_engine_writes_the_step_log_that_was_named() -> None:
    assert own_path(Path("a/steps.jsonl"), 0, 1) == Path("a/steps.jsonl")


def test_each_of_several_engines_has_a_step_log_of_its_own() -> None:
    found = {str(own_path(Path("a/steps.jsonl"), rank, 2)) for rank in range(2)}
    assert found == {"a/steps.0.jsonl", "a/steps.1.jsonl"}
