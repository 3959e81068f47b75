"""``vllm-sarathi``: what a scheduler would do at a load; what servers do now, and did."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from vllm_sarathi.cli.arguments import parser
from vllm_sarathi.cli.interrupts import ending_the_process

EXTRAS = {
    "simulator": ("numpy", "scipy", "matplotlib", "tqdm", "msgspec", "transformers"),
    "report": ("jinja2", "msgspec"),
    "top": ("rich",),
}
"""The modules that each extra brings, which commands import late."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 1 if a scheduler fails, nothing is found or no server answers, 2 for a bad
        argument, 130 interrupted, 141 where nobody reads the output to its end.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with ending_the_process():
        options = parser().parse_args(words)
    options.command_line = shlex.join(["vllm-sarathi", *words])
    extra = options.command if options.command in _LIGHT else "simulator"
    if missing := [name for name in EXTRAS[extra] if find_spec(name) is None]:
        print(
            f"vllm-sarathi: the extra {extra!r} needs {', '.join(missing)}: "
            f"pip install 'vllm-sarathi[{extra}]'",
            file=sys.stderr,
        )
        return 1
    try:
        code = _LIGHT.get(options.command, _simulate)(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # such as of "| head"
        # What is left is flushed at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ValueError as error:
        print(f"vllm-sarathi {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _report(options: argparse.Namespace) -> int:
    from vllm_sarathi.report.page import write_report

    steps = Path(options.steps)
    output = Path(options.output) if options.output else steps.with_suffix(".html")
    write_report(steps, output)
    print(output)
    return 0


def _watch(options: argparse.Namespace) -> int:
    from vllm_sarathi.top.screen import run

    return run(options.servers, options.interval, options.once)


def _simulate(options: argparse.Namespace) -> int:
    """Run a command of the simulator."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a scheduler of the user's own may lie here
    # The output is the result's; vLLM logs there unless told otherwise, also while it is imported.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    with ending_the_process():
        from vllm_sarathi.cli import commands, runner
        from vllm_sarathi.simulator import SchedulerDeadlockError

    try:
        return commands.run(options)
    except SchedulerDeadlockError as error:
        print(f"vllm-sarathi {options.command}: {error}", file=sys.stderr)
        return runner.FAILED


_LIGHT: dict[str, Callable[[argparse.Namespace], int]] = {"report": _report, "top": _watch}
"""Commands that load neither vLLM nor the simulator, by the name of their extra too."""


if __name__ == "__main__":
    sys.exit(main())
