"""What a reader is told of a run."""

from support.provenance import foot, provenance


def test_a_picture_says_when_it_was_made_with_which_vllm_and_by_which_command() -> None:
    found = provenance() | {"command": "python benchmarks/x.py", "date": "2026-01-02"}
    found["versions"]["vllm"] = "0.32.0+cpu"
    assert foot(found) == "2026-01-02, vLLM 0.32.0: python benchmarks/x.py"


def test_a_run_without_a_date_has_that_of_its_commit() -> None:
    dated = provenance() | {"command": "x"}
    undated = {key: value for key, value in dated.items() if key != "date"}
    assert foot(undated).partition(",")[0] <= foot(dated).partition(",")[0]
