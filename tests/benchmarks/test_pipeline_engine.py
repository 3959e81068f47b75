"""What the benchmark of a real pipeline tells vLLM."""

import pipeline_engine
import pytest
from pipeline_engine import environment, table

CORES = "VLLM_CPU_OMP_THREADS_BIND"


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 5})
    monkeypatch.setattr(pipeline_engine, "version", lambda _: "0.32.0+cpu")
    monkeypatch.delenv(CORES, raising=False)


def test_each_stage_on_a_cpu_has_its_share_of_the_cores() -> None:
    assert environment(2)[CORES] == "0,1|2,5"
    assert environment(4)[CORES] == "0|1|2|5"


def test_a_variable_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES, "0|1")
    assert environment(2)[CORES] == "0|1"


def test_nothing_is_said_of_cores_where_vllm_runs_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_engine, "version", lambda _: "0.32.0")
    assert CORES not in environment(2)


@pytest.mark.parametrize(("all_busy", "shown"), [(2.0, "2.00 | 1.50"), (None, "2.00 |  |")])
def test_bounds_stand_beside_the_ratio_where_they_were_measured(
    all_busy: float | None, shown: str
) -> None:
    pair = {"load": "16 x 64", "stock_s": 3.0, "sarathi_s": 2.5, "equal_tokens": True}
    rows = table([pair | {"stock_share_s": 1.5, "singles_share_s": all_busy}])
    assert f"| 3.00 | 2.50 | 1.20 (1.20 to 1.20) | {shown}" in rows
