"""The patches of this project, and copies of vLLM that have them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

FOLDER = Path(__file__).parents[2] / "patches"
HEADINGS = ("Why", "How", "Versions", "Upstream", "Remove", "Apply")


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of vLLM and what its header says.

    Attributes:
        file: the patch.
        title: its first line.
        said: the header's paragraphs by their headings.
        changes: files that it changes or adds, from vLLM's root.
    """

    file: Path
    title: str
    said: dict[str, str]
    changes: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> "Patch":
        """Read a patch; its header ends where the first file's changes begin."""
        header, _, diff = file.read_text().partition("\ndiff --git ")
        title, _, paragraphs = header.partition("\n\n")
        said = dict[str, str]()
        for line in paragraphs.splitlines():
            heading, colon, text = line.partition(":")
            if colon and heading in HEADINGS:
                said[heading] = text.strip()
            elif said:
                said[next(reversed(said))] += f" {line.strip()}"
        added = [line.removeprefix("+++ b/") for line in diff.splitlines() if line[:6] == "+++ b/"]
        return cls(file, title, said, tuple(added))

    def is_for(self, release: str) -> bool:
        """Whether it names this release of vLLM: "FIRST to LAST", or one alone."""
        first, _, last = self.said["Versions"].partition(" to ")
        return Version(first) <= Version(release) <= Version(last or first)

    @property
    def name(self) -> str:
        """What it is called on every release, wherever that needs patches of its own."""
        return re.sub(r"-\d.*", "", self.file.stem)

    @property
    def tests(self) -> tuple[str, ...]:
        """Test files that it adds to vLLM's."""
        return tuple(name for name in self.changes if name.startswith("tests/"))


def patches(release: str | None = None) -> list[Patch]:
    """All patches, or those for one release."""
    every = [Patch.read(file) for file in sorted(FOLDER.glob("*.patch"))]
    return [patch for patch in every if release is None or patch.is_for(release)]


def installed_vllm() -> Path:
    """The folder of the package that ``import vllm`` finds."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    (folder,) = spec.submodule_search_locations
    return Path(folder)


def installed_release() -> str:
    """Its version, without that of the build."""
    return version("vllm").partition("+")[0]


def make_copy(original: Path, copy: Path, chosen: Iterable[Patch]) -> None:
    """Make a patched copy of vLLM's package, or of its tests.

    Files that no patch changes are links.

    Args:
        original: the folder "vllm" or "tests".
        copy: where that folder goes.
        chosen: patches.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    part = original.name
    shutil.copytree(original, copy / part, ignore=ignored, copy_function=os.symlink)
    for patch in chosen:
        for file in map(copy.joinpath, patch.changes):
            if file.is_symlink():
                unchanged = file.resolve()
                file.unlink()
                shutil.copy(unchanged, file)
        apply = ("git", "apply", f"--include={part}/*", patch.file)
        # In a folder of a repository git would apply nothing, and say nothing.
        subprocess.run(apply, cwd=copy, env=os.environ | {"GIT_DIR": os.devnull}, check=True)
