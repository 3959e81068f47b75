"""Prometheus is unpacked whole or not at all, and once."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "prometheus"
APT = '#!/bin/sh\necho call >> "$CALLS"\n[ -z "$FAILS" ] || exit 1\ntouch prometheus_1_all.deb\n'
DPKG = '#!/bin/sh\nmkdir -p "$3/usr/bin"\ntouch "$3/usr/bin/prometheus" "$3/usr/bin/promtool"\n'


class Machine:
    """A machine with programs of Debian's that only pretend."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.calls = folder / "calls"
        self.calls.touch()
        for name, text in {"apt-get": APT, "dpkg-deb": DPKG}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def unpack(self, fails: str = "") -> str | None:
        """What the script prints; None if it fails."""
        own = {"XDG_CACHE_HOME": str(self.cache), "CALLS": str(self.calls), "FAILS": fails}
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | own | {"PATH": path}
        done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True)
        return None if done.returncode else done.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_programs_are_unpacked_once_into_the_folder_that_is_printed(machine: Machine) -> None:
    folder = machine.unpack()
    assert folder is not None
    assert {file.name for file in Path(folder).iterdir()} == {"prometheus", "promtool"}
    assert machine.unpack() == folder
    assert machine.calls.read_text() == "call\n"


def test_a_download_that_fails_leaves_nothing_and_the_next_one_succeeds(machine: Machine) -> None:
    assert machine.unpack(fails="yes") is None
    assert not list(machine.cache.rglob("*prometheus*"))
    assert machine.unpack() is not None
