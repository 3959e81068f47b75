import json
import subprocess
import sys

import pytest

from vllm_sarathi.cli import commands
from vllm_sarathi.cli.engine_spec import parse_engine, with_objective
from vllm_sarathi.cli.main import main
from vllm_sarathi.simulator import DEPLOYMENTS, LENGTHS, EngineSettings

SMALL = ["--requests", "20", "--workload", "fixed:100,10", "--rate", "5"]


def output(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_imports_no_vllm():
    program = (
        "import sys; from vllm_sarathi.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'vllm', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("module", ["numpy", "scipy", "tqdm", "matplotlib"])
def test_a_missing_extra_is_named(module, tmp_path):
    program = (
        f"import sys; sys.modules['{module}'] = None; from vllm_sarathi.cli.main import main\n"
        f"sys.exit(main(['simulate', 'stock', '--plots', '{tmp_path}']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"needs {module}: pip install 'vllm-sarathi[simulator]'" in done.stderr


def test_help_lists_every_deployment_and_workload(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["simulate", "--help"])
    said = capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert not [name for name in (*DEPLOYMENTS, *LENGTHS) if name not in said]


def test_simulate_prints_figures(capsys):
    code, out, _ = output(capsys, "simulate", "stock:512", *SMALL)
    assert code == 0
    assert "| tbt_p99_ms" in out
    assert "| stock:512 " in out


@pytest.mark.parametrize("workload", LENGTHS)
def test_every_workload_can_be_run(capsys, workload):
    load = ["--workload", workload, "--requests", "60", "--max-model-len", "131072"]
    code, out, _ = output(capsys, "simulate", "stock", *load, "--json")
    assert code == 0
    assert json.loads(out)["finished_requests"] == 60


def test_simulate_draws(capsys, tmp_path):
    code, _, _ = output(capsys, "simulate", "stock", *SMALL, "--plots", str(tmp_path))
    assert code == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["composition.png", "stages.png", "tbt_cdf.png"]


def test_json_is_for_machines(capsys):
    code, out, _ = output(
        capsys, "compare", "stock:512", "sarathi", *SMALL, "--seeds", "2", "--jobs", "1", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert list(found) == ["stock:512", "sarathi:2048"]
    assert [run["seed"] for run in found["stock:512"]] == [0, 1]


def test_nothing_but_json_is_on_the_output_when_vllm_is_new_to_the_process():
    command = [sys.executable, "-m", "vllm_sarathi.cli.main", "simulate", "stock", *SMALL, "--json"]
    done = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(done.stdout)["completed"]


def test_compare_prints_ratios(capsys):
    _, out, _ = output(
        capsys, "compare", "stock:512", "stock:64", *SMALL, "--seeds", "2", "--jobs", "1"
    )
    assert "ratio to stock:512" in out


def test_runs_that_were_cut_off_are_marked_and_give_no_ratio_of_latencies(capsys):
    engines, runs = ["stock:512", "stock:64"], ["--seeds", "2", "--jobs", "1"]
    _, out, _ = output(capsys, "compare", *engines, *SMALL, *runs, "--limit-s", "2")
    assert "| stock:512 (cut off) |" in out
    finished = next(cell for cell in out.split("|") if "/40" in cell)
    assert 0 < int(finished.split("/")[0]) < 40
    ratios = out[out.index("ratio to stock:512 (cut off)") :].splitlines()[2].split("|")
    assert [cell.strip() for cell in ratios[3:-1]] == ["-"] * 5


@pytest.mark.parametrize(("objective", "shown"), [([], None), (["--tbt-slo-ms", "1e6"], 1.0)])
def test_goodput_needs_an_objective(capsys, objective, shown):
    _, out, _ = output(capsys, "simulate", "stock", *SMALL, *objective, "--json")
    assert json.loads(out)["goodput"] == shown


def test_tune_names_the_best_budget(capsys):
    code, out, _ = output(
        capsys, "tune", *SMALL, "--budgets", "16,512", "--tbt-slo-ms", "60", "--delay-s", "0.2",
        "--seeds", "1", "--jobs", "1", "--precision", "0.3",
    )  # fmt: skip
    assert code == 0
    assert "best: stock:512" in out


def test_an_interrupt_leaves_what_was_finished(capsys, monkeypatch):
    def one_then_interrupt(function, tasks, num_jobs, on_done):
        yield 0, function(tasks[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run_all", one_then_interrupt)
    code, out, _ = output(capsys, "compare", "stock:512", "stock:64", *SMALL)
    assert code == 130
    assert "| stock:512" in out


def test_a_scheduler_may_lie_in_the_current_folder(capsys, tmp_path, monkeypatch):
    (tmp_path / "nearby.py").write_text("from vllm.v1.core.sched.scheduler import Scheduler\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    code, out, _ = output(capsys, "simulate", "nearby.Scheduler", *SMALL)
    assert code == 0
    assert "nearby.Scheduler" in out


IDLER = ["tests.simulator.test_engine.Idler", "--sync"]


def test_a_scheduler_that_does_nothing_is_named_with_its_queue(capsys):
    code, _, err = output(capsys, "simulate", *IDLER, *SMALL)
    assert code == 1
    assert "Idler scheduled nothing" in err
    assert "waiting" in err


@pytest.mark.parametrize("command", ["compare", "capacity"])
def test_engines_that_work_are_reported_beside_one_that_fails(capsys, command):
    raiser, one_job = "tests.simulator.test_engine.Raiser", ["--jobs", "1", "--seeds", "1"]
    code, out, err = output(capsys, command, "stock:512", raiser, *IDLER, *SMALL, *one_job)
    assert code == 1
    assert "Idler scheduled nothing" in err
    assert "RuntimeError: no" in err
    row = {line.split("|")[1].strip(): line for line in out.splitlines() if "|" in line}
    assert "±" not in row["tests.simulator.test_engine.Idler:2048,async_scheduling=false (failed)"]
    assert "tests.simulator.test_engine.Raiser:2048,async_scheduling=false (failed)" in row
    assert "stock:512,async_scheduling=false" in row


def test_a_budget_that_fails_is_not_the_best():
    failed, works = [{"error": "no"}], [{"capacity_rps": 2.0}]
    assert commands.best_engine({"a": failed, "b": works}) == "b"
    assert commands.best_engine({"a": failed}) is None


@pytest.mark.parametrize(
    ("option", "num_computed"), [([], 2064), (["--trace-hash-tokens=512"], 1552)]
)
def test_the_size_of_a_traces_hash_blocks_is_an_option(capsys, tmp_path, option, num_computed):
    path = tmp_path / "load.jsonl"
    line = '{"timestamp": %d, "input_length": 1040, "output_length": 1, "hash_ids": [7]}\n'
    path.write_text(line % 0 + line % 9)
    _, out, _ = output(capsys, "simulate", "stock", "--trace", str(path), *option, "--json")
    figures = json.loads(out)
    assert figures["tokens_per_s"] * figures["duration_s"] == pytest.approx(num_computed, rel=0.02)


def test_a_trace_is_an_argument(capsys, tmp_path):
    path = tmp_path / "load.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,50,5\n1,60,5\n")
    code, out, _ = output(capsys, "simulate", "stock", "--trace", str(path), "--json")
    assert code == 0
    assert json.loads(out)["finished_requests"] == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["simulate", "no.Class"], "'no.Class'"),
        (["simulate", "stock:0"], "budget '0'"),
        (["simulate", "stock,chunk_size=3"], "'chunk_size'"),
        (["compare", "stock", "sarathi,nonsense=1"], "'nonsense'"),
        (["simulate", "stock", "--workload", "novel"], "--workload 'novel'"),
        (["simulate", "stock", "--workload", "fixed:1"], "fixed:PROMPT,OUTPUT"),
        (["simulate", "stock", "--deployment", "b100"], "'b100'"),
        (["simulate", "stock", "--stages", "5"], "num_stages=5"),
        (["simulate", "stock", "--trace", "nowhere.csv"], "nowhere.csv"),
        (["simulate", "stock", "--workload", "fixed:40000,1"], "max_model_len=32768"),
        (["simulate", "stock", "--cv", "-1"], "cv=-1"),
        (["simulate", "stock", "--cv", "inf"], "cv=inf"),
        (["simulate", "stock", "--workload", "zipf:-1"], "zipf:PD"),
        (["simulate", "stock", "--workload", "zipf:nan"], "zipf:PD"),
        (["simulate", "stock,max_num_seqs=foo"], "max_num_seqs='foo' must be 1 or more"),
        (["simulate", "stock,async_scheduling=maybe"], "async_scheduling='maybe' must be true or"),
        (["simulate", "stock,policy=lifo"], "policy='lifo' must be fcfs or priority"),
        (["simulate", "stock:²"], "budget '²'"),
        (
            ["simulate", "stock", "--trace", "t.csv", "--cv", "0"],
            "--cv has no effect beside --trace",
        ),
        (["simulate", "stock", "--trace", "t.csv", "--at-once"], "--at-once has no effect"),
        (["simulate", "stock", "--trace", "t.csv", "--shape", "ramp"], "--shape has no effect"),
        (["simulate", "stock", "--trace", "t.csv", "--workload", "code"], "--workload has no"),
        (
            ["simulate", "stock", "--at-once", "--rate", "3"],
            "--rate has no effect beside --at-once",
        ),
        (["simulate", "stock", "--trace-time-unit-s", "2"], "no effect without --trace"),
        (["simulate", "stock", "--json", "/nowhere/x"], "--json '/nowhere/x' must be a file in"),
        (["simulate", "stock", "--plots", __file__], "must be a folder"),
        (["calibrate", "x", "-o/", "--kv-tokens=1", "--max-model-len=1"], "--output '/' must be"),
        (["capacity", "stock", "--goodput", "0.9"], "--goodput needs"),
    ],
)
def test_bad_arguments_are_named_and_exit_with_2(capsys, arguments, named):
    code, _, err = output(capsys, *arguments)
    assert code == 2
    assert named in err


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--rate", "0", "a number above 0"),
        ("--rate", "abc", "a number above 0"),
        ("--requests", "1.5", "a whole number, 1 or more"),
        ("--seeds", "-1", "a whole number, 1 or more"),
        ("--seed", "-1", "a whole number, 0 or more"),
        ("--noise", "inf", "a share from 0 to 1"),
        ("--noise", "-1", "a share from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_named_and_exit_with_2(capsys, option, value, allowed):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "stock", f"{option}={value}"])
    assert f"argument {option}: '{value}' must be {allowed}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["capacity", "stock"], ["tune"]])
def test_a_search_for_a_rate_has_none_of_its_requests_at_once(capsys, command):
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--at-once"])
    assert "--at-once" in capsys.readouterr().err


def test_a_capacity_search_keeps_to_the_time_limit(capsys):
    search = ["capacity", "stock", *SMALL, "--seeds", "1", "--jobs", "1", "--json"]
    _, out, _ = output(capsys, *search, "--limit-s", "0.001")
    assert json.loads(out)["stock:2048"][0]["capacity_rps"] == 0


@pytest.mark.parametrize(
    "word",
    [
        "stock:512",
        "stock:512,max_num_seqs=4",
        "stock:512,async_scheduling=false,policy=priority,enable_prefix_caching=true",
        "sarathi:8192,max_num_seqs=8,tbt_slo_ms=50.5,tile_size=null,balance_micro_batches=true",
        "sarathi:2048,preset=stall-free",
    ],
)
def test_the_name_of_an_engine_is_a_word_that_makes_it(word):
    assert parse_engine(word, EngineSettings()).name == word


def test_a_label_of_ones_own_stays():
    assert EngineSettings(label="mine").name == "mine"
    assert parse_engine("stock,label=7", EngineSettings()).name == "7"


def test_an_engine_is_one_word():
    engine = parse_engine("sarathi:1024,tbt_slo_ms=50,max_num_seqs=8", EngineSettings())
    assert (engine.max_num_batched_tokens, engine.max_num_seqs) == (1024, 8)
    assert engine.sarathi == {"tbt_slo_ms": 50}


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("sarathi", {"tbt_slo_ms": 50.0}),
        ("sarathi,tbt_slo_ms=9", {"tbt_slo_ms": 9}),
        ("sarathi,token_budget=9", {"token_budget": 9}),
        ("stock", {}),
    ],
)
def test_our_scheduler_is_told_the_objective_unless_it_has_its_own(word, settings):
    assert with_objective(parse_engine(word, EngineSettings()), 0.05).sarathi == settings
