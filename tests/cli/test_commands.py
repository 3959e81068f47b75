import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.simulator.machine.configs import LLAMA_3_8B
from tests.support.command_line import SMALL, output
from vllm_sarathi.cli import commands
from vllm_sarathi.cli.commands import Figures
from vllm_sarathi.cli.tasks import Task, Tell
from vllm_sarathi.simulator import LENGTHS, Deployment, EngineSettings, deployment
from vllm_sarathi.simulator.results.notes import ByEngine


def test_simulate_prints_figures(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "simulate", "stock:512", *SMALL)
    assert code == 0
    assert "| tbt_p99_ms" in out
    assert "| stock:512 " in out


@pytest.mark.parametrize("workload", LENGTHS)
def test_every_workload_can_be_run(capsys: pytest.CaptureFixture[str], workload: str) -> None:
    load = ["--workload", workload, "--requests", "60", "--max-model-len", "131072"]
    code, out, _ = output(capsys, "simulate", "stock", *load, "--json")
    assert code == 0
    assert json.loads(out)["results"]["finished_requests"] == 60


def test_simulate_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, _ = output(capsys, "simulate", "stock", *SMALL, "--plots", str(tmp_path))
    assert code == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["composition.png", "gaps.png", "stages.png"]


def test_json_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(
        capsys, "compare", "stock:512", "sarathi", *SMALL, "--seeds", "2", "--jobs", "1", "--json"
    )
    assert code == 0
    found = json.loads(out)["results"]
    assert list(found) == ["stock:512", "sarathi:2048"]
    assert [run["seed"] for run in found["stock:512"]] == [0, 1]


def test_nothing_but_json_is_on_the_output_when_vllm_is_new_to_the_process() -> None:
    command = [sys.executable, "-m", "vllm_sarathi.cli.main", "simulate", "stock", *SMALL, "--json"]
    done = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(done.stdout)["results"]["completed"]


def test_compare_prints_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(
        capsys, "compare", "stock:512", "stock:64", *SMALL, "--seeds", "2", "--jobs", "1"
    )
    assert "ratio to stock:512" in out


def test_runs_that_were_cut_off_are_marked_and_give_no_ratio_of_latencies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engines, runs = ["stock:512", "stock:64"], ["--seeds", "2", "--jobs", "1"]
    _, out, _ = output(capsys, "compare", *engines, *SMALL, *runs, "--limit-s", "2")
    assert "| stock:512 (cut off) |" in out
    finished = next(cell for cell in out.split("|") if "/40" in cell)
    assert 0 < int(finished.split("/")[0]) < 40
    ratios = out[out.index("ratio to stock:512 (cut off)") :].splitlines()[2].split("|")
    assert [cell.strip() for cell in ratios[3:-1]] == ["-"] * 5


@pytest.mark.parametrize(
    ("objective", "shown"),
    [
        ([], None),
        (["--tbt-slo-ms", "1e6"], 1.0),
        (["--tpot-slo-ms", "1e6"], 1.0),
        (["--tpot-slo-ms", "1e-6"], 0.0),
    ],
)
def test_goodput_needs_an_objective(
    capsys: pytest.CaptureFixture[str], objective: list[str], shown: float | None
) -> None:
    _, out, _ = output(capsys, "simulate", "stock", *SMALL, *objective, "--json")
    assert json.loads(out)["results"]["goodput"] == shown


def test_tune_names_the_best_budget(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(
        capsys, "tune", *SMALL, "--budgets", "16,512", "--tbt-slo-ms", "60", "--delay-s", "0.2",
        "--seeds", "1", "--jobs", "1", "--precision", "0.3",
    )  # fmt: skip
    assert code == 0
    assert "best: stock:512" in out


def test_an_interrupt_leaves_what_was_finished(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_then_interrupt(
        function: Callable[[Task, Tell], Figures], tasks: list[Task], *_: object
    ) -> Iterator[tuple[int, Figures]]:
        yield 0, function(tasks[0], print)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run_watched", one_then_interrupt)
    code, out, _ = output(capsys, "compare", "stock:512", "stock:64", *SMALL)
    assert code == 130
    assert "| stock:512" in out


def test_a_scheduler_may_lie_in_the_current_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nearby.py").write_text("from vllm.v1.core.sched.scheduler import Scheduler\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    code, out, _ = output(capsys, "simulate", "nearby.Scheduler", *SMALL)
    assert code == 0
    assert "nearby.Scheduler" in out


IDLER = ["tests.support.broken_schedulers.Idler", "--sync"]


def test_a_scheduler_that_does_nothing_is_named_with_its_queue(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = output(capsys, "simulate", *IDLER, *SMALL)
    assert code == 1
    assert "Idler scheduled nothing" in err
    assert "waiting" in err


@pytest.mark.parametrize("command", ["compare", "capacity"])
def test_engines_that_work_are_reported_beside_one_that_fails(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    raiser, one_job = "tests.support.broken_schedulers.Raiser", ["--jobs", "1", "--seeds", "1"]
    code, out, err = output(capsys, command, "stock:512", raiser, *IDLER, *SMALL, *one_job)
    assert code == 1
    assert "Idler scheduled nothing" in err
    assert "RuntimeError: no" in err
    row = {line.split("|")[1].strip(): line for line in out.splitlines() if "|" in line}
    assert (
        "±" not in row["tests.support.broken_schedulers.Idler:2048,async_scheduling=false (failed)"]
    )
    assert "tests.support.broken_schedulers.Raiser:2048,async_scheduling=false (failed)" in row
    assert "stock:512,async_scheduling=false" in row


def test_a_budget_that_fails_is_not_the_best() -> None:
    failed: list[Figures | None] = [{"error": "no"}]
    works: list[Figures | None] = [{"capacity_rps": 2.0}]
    assert commands.best_engines({"a": failed, "b": works}, 0.02) == ["b"]
    assert commands.best_engines({"a": failed}, 0.02) == []


def test_budgets_that_are_level_are_all_the_best() -> None:
    rates = {"a": 1.0, "b": 1.99, "c": 2.0}
    found: ByEngine = {name: [{"capacity_rps": rate}] for name, rate in rates.items()}
    assert commands.best_engines(found, 0.02) == ["b", "c"]


@pytest.mark.parametrize(
    ("option", "num_computed"), [([], 2064), (["--trace-hash-tokens=512"], 1552)]
)
def test_the_size_of_a_traces_hash_blocks_is_an_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: list[str], num_computed: int
) -> None:
    path = tmp_path / "load.jsonl"
    line = '{"timestamp": %d, "input_length": 1040, "output_length": 1, "hash_ids": [7]}\n'
    path.write_text(line % 0 + line % 9)
    _, out, _ = output(capsys, "simulate", "stock", "--trace", str(path), *option, "--json")
    figures = json.loads(out)["results"]
    assert figures["tokens_per_s"] * figures["duration_s"] == pytest.approx(num_computed, rel=0.02)


def test_a_trace_is_an_argument(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,50,5\n1,60,5\n")
    code, out, _ = output(capsys, "simulate", "stock", "--trace", str(path), "--json")
    assert code == 0
    assert json.loads(out)["results"]["finished_requests"] == 2


def test_a_capacity_search_keeps_to_the_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    search = ["capacity", "stock", *SMALL, "--seeds", "1", "--jobs", "1", "--json"]
    _, out, _ = output(capsys, *search, "--limit-s", "0.001")
    assert json.loads(out)["results"]["stock:2048"][0]["capacity_rps"] == 0


QUICK = ["--seeds", "1", "--jobs", "1", "--precision", "0.5"]


def test_a_file_of_figures_holds_what_makes_them_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "figures.json"
    asked = ["compare", "stock:512", *SMALL, "--seed=7", "--seeds=2", "--noise=0.02", "--jobs=1"]
    output(capsys, *asked, "--json", str(path))
    first = json.loads(path.read_text())
    told = first["provenance"]
    assert (told["seeds"], told["noise"], told["load"]["rate_rps"]) == ([7, 8], 0.02, 5)
    assert Deployment.from_json(told["deployment"]) == deployment("a100-llama-3-8b")
    assert EngineSettings(**told["engines"]["stock:512"]).max_num_batched_tokens == 512
    assert {"vllm", "vllm-sarathi"} <= set(told["versions"])
    output(capsys, *shlex.split(told["command"])[1:])
    again = json.loads(path.read_text())
    assert [without_wall(run) for run in again["results"]["stock:512"]] == [
        without_wall(run) for run in first["results"]["stock:512"]
    ]


def without_wall(figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if name != "wall_s"}


def test_a_config_of_hugging_face_on_a_gpu_is_a_deployment_whose_estimate_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_3_8B))
    machine = ["--gpu=l40s", "--tensor-parallel-size=2", "--stages=2", "--kv-cache-dtype=fp8"]
    asked = ["simulate", "stock:512", *SMALL, "--model", str(path), *machine, "--json"]
    _, out, err = output(capsys, *asked)
    found = Deployment.from_json(json.loads(out)["provenance"]["deployment"])
    assert (found.name, len(found.stages)) == (f"l40s-{tmp_path.name}-fp8-kv-tp2-pp2", 2)
    assert f"step times of {found.name} are estimated" in err


def test_a_trace_is_known_by_what_it_holds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "load.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,50,5\n")
    _, out, _ = output(capsys, "simulate", "stock", "--trace", str(path), "--json")
    trace = json.loads(out)["provenance"]["load"]["trace"]
    assert trace["sha256"] == sha256(path.read_bytes()).hexdigest()


def test_an_objective_without_goodput_limits_capacity(capsys: pytest.CaptureFixture[str]) -> None:
    search = ["capacity", "stock", *SMALL, *QUICK, "--ttft-slo-ms", "1"]
    _, out, _ = output(capsys, *search)
    assert "ttft_p99_ms (at most 1)" in out
    assert "no rate meets the goal. At 0.01973 requests/s, the lowest tried, ttft_p99_ms is" in out


def test_the_error_of_a_capacity_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(capsys, "capacity", "stock", *SMALL, *QUICK, "--tbt-slo-ms", "20")
    assert "Each capacity is searched to 50.0%, in runs of" in out


def test_tune_that_finds_nothing_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "tune", *SMALL, *QUICK, "--budgets=16", "--tbt-slo-ms=1")
    assert code == 1
    assert "best: none" in out


def test_a_simulation_beyond_what_calibrate_saw_is_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    steps, machine = tmp_path / "steps.jsonl", tmp_path / "machine.json"
    work = {"chunk_context": 0, "decode_context": 10**6}
    lines = [{"work": {"num_tokens": 1 + i % 64, **work}, "duration_s": 0.01} for i in range(100)]
    steps.write_text("\n".join(map(json.dumps, lines)))
    sizes = ["--kv-tokens=10000", "--max-model-len=1000"]
    _, out, _ = output(capsys, "calibrate", str(steps), "-o", str(machine), *sizes)
    assert "steps of at most 64 tokens" in out
    code, _, err = output(capsys, "simulate", "stock", *SMALL, "--deployment", str(machine))
    assert code == 0
    assert "of the steps are larger than any that 'calibrated' was calibrated on" in err
