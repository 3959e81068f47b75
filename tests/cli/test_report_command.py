import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import output
from tests.support.step_log import BEGIN, placed, step, write_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_log(tmp_path / "steps.jsonl", BEGIN, *placed([step()] * 20))


def test_the_page_lies_beside_the_log_unless_it_has_a_name(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside, named = path.with_suffix(".html"), path.with_name("named.html")
    assert output(capsys, "report", str(path)) == (0, f"{beside}\n", "")
    assert output(capsys, "report", str(path), "-o", str(named)) == (0, f"{named}\n", "")
    assert beside.read_text() == named.read_text()


def test_what_cannot_be_read_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = output(capsys, "report", str(tmp_path / "missing.jsonl"))
    assert (code, out) == (2, "")
    assert err.startswith("vllm-sarathi report: step log ")
    assert err.count("\n") == 1


def test_the_command_loads_neither_vllm_nor_torch(path: Path) -> None:
    program = (
        f"import sys; from vllm_sarathi.cli.main import main; main(['report', {str(path)!r}])\n"
        "assert not {'vllm', 'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("module", ["jinja2", "msgspec"])
def test_a_missing_extra_is_named(module: str, path: Path) -> None:
    program = (
        f"import sys; sys.modules['{module}'] = None; from vllm_sarathi.cli.main import main\n"
        f"sys.exit(main(['report', {str(path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"needs {module}: pip install 'vllm-sarathi[report]'" in done.stderr
