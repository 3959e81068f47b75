import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.support.command_line import output
from vllm_sarathi import __version__
from vllm_sarathi.cli.main import main
from vllm_sarathi.simulator import GPUS, LENGTHS, MODELS


def test_help_imports_no_vllm() -> None:
    program = (
        "import sys; from vllm_sarathi.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'vllm', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("report", "One HTML page about a step log"),
        ("tune", "static token budget of stock vLLM"),
        ("tune", "(default 256, 384, 512,"),
        ("capacity", "to start the search at"),
    ],
)
def test_help_is_plain_text(
    command: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert said in capsys.readouterr().out


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    program = (
        "import sys; from vllm_sarathi.cli import main as cli\n"
        "cli._LIGHT['top'] = lambda options: print('x' * 100_000) or 0\n"
        "sys.exit(cli.main(['top', 'localhost:1']))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_version_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"vllm-sarathi {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "no.Class"],
        ["compare", "stock", "sarathi,nonsense=1"],
        ["compare", "stock", "stock:16,max_num_seqs=256"],
        ["capacity", "stock", "--deployment", "b100"],
        ["capacity", "stock", "--workload", "fixed:40000,1"],
        ["tune", "--trace", "nowhere.csv"],
        ["calibrate", "nowhere.jsonl", "-ox", "--kv-tokens=9", "--max-model-len=9"],
    ],
)
def test_a_wrong_argument_is_refused_before_vllm_is_imported(arguments: list[str]) -> None:
    program = (
        f"import sys; from vllm_sarathi.cli.main import main; code = main({arguments})\n"
        "assert code == 2 and not {'vllm', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("engines", [["stock"], ["stock", "stock:512"]])
def test_an_interrupt_while_vllm_is_imported_leaves_no_traceback(
    tmp_path: Path, engines: list[str]
) -> None:
    slow = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "vllm.py").write_text(slow)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    # A shell's background jobs begin with interrupts ignored.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from vllm_sarathi.cli.main import main\n"
        f"if __name__ == '__main__': sys.exit(main(['compare', *{engines}, '--seeds', '1']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "module", ["numpy", "scipy", "tqdm", "matplotlib", "msgspec", "transformers"]
)
def test_a_missing_extra_is_named(module: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules['{module}'] = None; from vllm_sarathi.cli.main import main\n"
        f"sys.exit(main(['simulate', 'stock', '--plots', '{tmp_path}']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"needs {module}: pip install 'vllm-sarathi[simulator]'" in done.stderr


def test_help_lists_every_gpu_model_and_workload(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["simulate", "--help"])
    said = capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert not [name for name in (*GPUS, *MODELS, *LENGTHS) if name not in said]


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
        (
            ["simulate", "stock", "--deployment=x", "--model=y"],
            "--model has no effect beside",
        ),
        (["simulate", "stock", "--gpu=h100"], "--gpu has no effect without --model"),
        (["simulate", "stock", "--kv-cache-dtype=fp8"], "--kv-cache-dtype has no effect without"),
        (["simulate", "stock", "--model=gpt-3"], "--gpu None must be one of a100"),
        (["simulate", "stock", "--model=gpt-9", "--gpu=h100"], "model 'gpt-9'"),
        (["simulate", "stock", "--model=gpt-3", "--gpu=h100"], "gpt-3 does not fit"),
        (["simulate", "stock", "--stages", "33"], "num_stages=33"),
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
        (
            ["compare", "stock", "--rate", "3", "--rates", "3,4"],
            "--rate has no effect beside --rates",
        ),
        (["compare", "stock", "--at-once", "--rates", "3"], "--rates has no effect beside --at"),
        (["simulate", "stock", "--trace-time-unit-s", "2"], "no effect without --trace"),
        (["simulate", "stock", "--json", "/nowhere/x"], "--json '/nowhere/x' must be a file in"),
        (["simulate", "stock", "--plots", __file__], "must be a folder"),
        (["replay", "nowhere.jsonl", "sarathi,nonsense=1"], "nonsense"),
        (["replay", "nowhere.jsonl", "stock"], "step log 'nowhere.jsonl' cannot be read"),
        (["compare", "stock", "--csv", "/nowhere/x"], "--csv '/nowhere/x' must be a file in"),
        (["compare", "stock", "--bench-json", __file__], "--bench-json '"),
        (["calibrate", "x", "-o/", "--kv-tokens=1", "--max-model-len=1"], "--output '/' must be"),
        (["capacity", "stock", "--goodput-share", "0.9"], "no effect without --goodput"),
        (["capacity", "stock", "--goodput", "ttft:1", "ttft:2"], "ttft:1 ttft:2 must have each"),
        (["simulate", "stock:16,max_num_seqs=256"], "max_num_seqs=256 must be at most max_num_bat"),
        (["tune", "--max-num-seqs=300", "--budgets=256"], "max_num_seqs=300 must be at most max_n"),
        (["simulate", "stock", "--max-model-len", "10000000"], "at least 10000000"),
    ],
)
def test_bad_arguments_are_named_and_exit_with_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = output(capsys, *arguments)
    assert code == 2
    assert named in err


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--rate", "0", "a number above 0"),
        ("--rate", "abc", "a number above 0"),
        ("--rates", "1,0", "a number above 0"),
        ("--requests", "1.5", "a whole number, 1 or more"),
        ("--seeds", "-1", "a whole number, 1 or more"),
        ("--seed", "-1", "a whole number, 0 or more"),
        ("--noise", "inf", "a share from 0 to 1"),
        ("--noise", "-1", "a share from 0 to 1"),
        ("--goodput", "0.9", "KEY:MILLISECONDS with the key ttft, tpot, e2el"),
        ("--goodput", "itl:50", "KEY:MILLISECONDS with the key ttft, tpot, e2el"),
    ],
)
def test_numbers_out_of_range_are_named_and_exit_with_2(
    capsys: pytest.CaptureFixture[str], option: list[str], value: str, allowed: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "stock", f"{option}={value}"])
    assert (
        f"argument {option}: '{value.split(',')[-1]}' must be {allowed}" in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", [["capacity", "stock"], ["tune"]])
def test_a_search_for_a_rate_has_none_of_its_requests_at_once(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--at-once"])
    assert "--at-once" in capsys.readouterr().err
