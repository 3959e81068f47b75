"""Runs ``vllm-sarathi`` in this process."""

import pytest

from vllm_sarathi.cli.main import main

SMALL = ("--requests", "20", "--workload", "fixed:100,10", "--rate", "5")


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit code of a command line, and what it wrote to stdout and stderr."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
