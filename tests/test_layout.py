"""Every room imports only what the rule of the layout allows, inside functions too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vllm_sarathi

PACKAGE = Path(vllm_sarathi.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "_version": set(),
    "qos_classes": set(),
    "config_errors": {"qos_classes"},
    "config": {"config_errors", "qos_classes"},
    "engine_limits": {"config"},
    "scheduler_choice": {"config", "config_errors"},
    "latency": set(),
    "shed_notice": set(),
    "objectives": {"config", "config_errors", "latency", "qos_classes"},
    "policy": {"config", "objectives"},
    "metrics": {"policy", "config", "objectives"},
    "scheduler": {"policy", "metrics", "config", "engine_limits", "objectives", "shed_notice"},
    "front_end": {"config", "scheduler_choice", "objectives", "latency", "shed_notice", "metrics"},
    "plugin": {
        *("scheduler", "front_end", "metrics"),
        *("config", "engine_limits", "scheduler_choice"),
    },
    "llm": {"plugin", "scheduler_choice", "config"},
    "__init__": {"_version", "config", "scheduler", "llm"},
    # The simulator charges for the work that the policy predicts: one StepWork for both.
    # It replays a step log, which the report reads.
    "simulator": {"scheduler", "policy", "config", "latency", "report"},
    # It takes the limits' names and the rule of paused decodes from the policy.
    "report": {"policy"},
    "top": set(),
    "cli": {"simulator", "report", "top", "config", "latency", "qos_classes"},
}
TOUCH_VLLM = (
    "scheduler",
    "front_end/offline_metrics",
    "front_end/request_checks",
    "front_end/refusals",
    "simulator/engine",
    "plugin",
    "llm",
)
LOGGER_ONLY = ("metrics",)
DECIDE = (
    *("policy", "config", "engine_limits", "scheduler_choice"),
    *("latency", "objectives", "qos_classes", "shed_notice"),
)


def room_of(module: str) -> str:
    """First part of a module's path inside the package; "__init__" is the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(file: Path) -> Iterator[str]:
    """Dotted names of what a file imports, names taken from a package included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports name their module in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").as_posix()


@pytest.mark.parametrize("file", FILES, ids=place_of)
def test_a_room_imports_only_rooms_that_it_may(file: Path) -> None:
    own = place_of(file).split("/")[0]
    used = {room_of(name) for name in imports_of(file) if name.split(".")[0] == "vllm_sarathi"} - {
        own,
        "__version__",
    }
    assert used <= MAY_IMPORT[own], f"{place_of(file)} imports {used - MAY_IMPORT[own]}"


@pytest.mark.parametrize("file", FILES, ids=place_of)
def test_only_the_rooms_that_touch_vllm_import_it(file: Path) -> None:
    names = {name for name in imports_of(file) if name.split(".")[0] in ("vllm", "torch")}
    if place_of(file).startswith(LOGGER_ONLY):
        names -= {"vllm.logger.init_logger"}
    assert not names or place_of(file).startswith(TOUCH_VLLM), f"{place_of(file)}: {names}"


@pytest.mark.parametrize(
    "file", [file for file in FILES if place_of(file).startswith(DECIDE)], ids=place_of
)
def test_what_decides_reads_no_clock_and_no_environment_and_logs_nothing(file: Path) -> None:
    looks_around = {"time", "datetime", "os", "logging", "random", "subprocess", "socket"}
    assert looks_around.isdisjoint(name.split(".")[0] for name in imports_of(file))
    assert "print(" not in file.read_text()


def test_importing_the_package_and_what_decides_loads_neither_vllm_nor_torch() -> None:
    modules = [
        "vllm_sarathi." + place_of(file).replace("/", ".")
        for file in FILES
        if place_of(file).startswith(DECIDE)
    ]
    code = f"import sys, {', '.join(modules)}; print({{'vllm', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        vllm_sarathi.nothing  # noqa: B018
