import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.simulator.machine.configs import LLAMA_3_8B
from tests.support.command_line import SMALL, output
from tests.support.recorded import record
from tests.support.step_log import BEGIN, placed, step, write_log
from vllm_sarathi.cli import commands, runner
from vllm_sarathi.cli.runner import Figures
from vllm_sarathi.cli.tasks import Task, Tell
from vllm_sarathi.simulator import LENGTHS, Deployment, EngineSettings, deployment
from vllm_sarathi.simulator.results.notes import ByEngine

QUICK = ["--seeds", "1", "--jobs", "1", "--precision", "0.5"]


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
    assert [cell.strip() for cell in ratios[3:-1]] == ["-"] * 6


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


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_goodput_is_asked_for_as_vllm_bench_serve_does(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    asked = ["--goodput", "ttft:1e6", "tpot:1e6", "e2el:1e6"]
    more = ["--jobs=1", "--seeds=1"] if command == "compare" else []
    _, out, _ = output(capsys, command, "sarathi:512", *SMALL, *more, *asked, "--json")
    told = json.loads(out)
    (run,) = told["results"]["sarathi:512"] if command == "compare" else [told["results"]]
    assert run["goodput"] == 1
    assert run["request_goodput"] == pytest.approx(20 / run["duration_s"])
    assert set(told["provenance"]["engines"]["sarathi:512"]["sarathi"]) == {
        *("ttft_slo_ms", "tpot_slo_ms", "e2e_slo_ms")
    }


def test_capacity_keeps_percentiles_and_a_share_in_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    goals = ["--tbt-slo-ms", "100", "--goodput", "ttft:2000", "--goodput-share", "0.5"]
    _, out, _ = output(capsys, "capacity", "stock", *SMALL, *QUICK, *goals, "--json")
    told = json.loads(out)
    checks = {one["figure"]: one["limit"] for one in told["results"]["stock:2048"][0]["checks"]}
    assert (checks["tbt_p99_ms"], checks["goodput"]) == (100, 0.5)


def test_compare_takes_several_rates_and_draws_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    load = ["--requests", "20", "--workload", "fixed:100,10", "--rates", "20,5"]
    asked = ["--goodput", "ttft:2000", "--seeds=2", "--jobs=1", "--plots", str(tmp_path)]
    figures = tmp_path / "figures.json"
    _, out, err = output(
        capsys, "compare", "stock:512", "stock:64", *load, *asked, "--json", str(figures)
    )
    assert out.index("At 5 requests/s:") < out.index("At 20 requests/s:")
    assert out.count("| stock:64 ") == 4
    told = json.loads(figures.read_text())
    runs = [(run["rate_rps"], run["seed"]) for run in told["results"]["stock:64"]]
    assert runs == [(5, 0), (5, 1), (20, 0), (20, 1)]
    assert told["provenance"]["load"]["rate_rps"] == [5, 20]
    assert err.endswith(f"{tmp_path / 'rates.png'}\n")
    assert (tmp_path / "rates.png").exists()


def test_runs_are_written_as_csv_and_as_vllm_bench_serve_saves_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table, folder = tmp_path / "runs.csv", tmp_path / "bench"
    files = ["--csv", str(table), "--bench-json", str(folder), "--json"]
    more = ["--seeds=2", "--jobs=1", "--goodput", "ttft:1e5"]
    _, out, _ = output(capsys, "compare", "stock:512", *SMALL, *more, *files)
    runs = json.loads(out)["results"]["stock:512"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["engine"], row["seed"]) for row in rows] == [
        ("stock:512", "0"),
        ("stock:512", "1"),
    ]
    saved = json.loads((folder / "stock_512-rate=5-seed=1.json").read_text())
    assert saved["median_ttft_ms"] == pytest.approx(runs[1]["ttft_p50_s"] * 1e3)
    assert (
        saved["request_goodput"] == runs[1]["request_goodput"] == float(rows[1]["request_goodput"])
    )
    assert len(json.loads((folder / "summary.json").read_text())) == 2
    assert "bench" not in runs[0]


@pytest.mark.parametrize("command", [["simulate", "stock"], ["capacity", "stock", *QUICK]])
def test_every_command_writes_its_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    files = ["--csv", str(tmp_path / "runs.csv"), "--bench-json", str(tmp_path)]
    output(capsys, command[0], *command[1:], *SMALL, *files)
    (saved,) = json.loads((tmp_path / "summary.json").read_text())
    assert (saved["label"], saved["model_id"]) == ("stock:2048", "a100-llama-3-8b")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2


def test_capacity_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output(capsys, "capacity", "stock", *SMALL, *QUICK, "--plots", str(tmp_path))
    assert (tmp_path / "capacity.png").exists()


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

    monkeypatch.setattr(runner, "run_watched", one_then_interrupt)
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


@pytest.mark.parametrize(("hash_tokens", "num_computed"), [("16", 2064), ("512", 1552)])
def test_the_size_of_a_traces_hash_blocks_is_an_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, hash_tokens: str, num_computed: int
) -> None:
    path = tmp_path / "load.jsonl"
    line = '{"timestamp": %d, "input_length": 1040, "output_length": 1, "hash_ids": [7]}\n'
    path.write_text(line % 0 + line % 9)
    said = ["--trace-hash-tokens", hash_tokens, "--trace-time-unit-s", "1"]
    _, out, _ = output(capsys, "simulate", "stock", "--trace", str(path), *said, "--json")
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


def test_calibrate_takes_limits_from_the_log_unless_they_are_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    steps, machine = tmp_path / "steps.jsonl", tmp_path / "machine.json"
    begun = replace(deployment("a100-llama-3-8b"), num_kv_tokens=64_000, kv_windows=(64, None))
    record(steps, begun)
    for given, room in ([], 64_000), (["--kv-tokens=32800"], 32_800):
        assert output(capsys, "calibrate", str(steps), "-o", str(machine), *given)[0] == 0
        found = deployment(str(machine))
        assert found.num_kv_tokens == room
        assert (found.max_model_len, found.kv_windows) == (begun.max_model_len, (64, None))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "max_model_len=None; give --kv-tokens and --max-model-len"),
        (["--kv-tokens=10", "--max-model-len=20"], "num_kv_tokens=10 must be at least 32"),
    ],
)
def test_calibrate_refuses_limits_that_are_missing_or_impossible(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: list[str], named: str
) -> None:
    steps = write_log(tmp_path / "steps.jsonl", BEGIN, *placed([step()]))
    code, _, err = output(capsys, "calibrate", str(steps), "-o", str(tmp_path / "x"), *given)
    assert code == 2
    assert named in err


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
