"""A private folder that the processes of one server share.

The first process makes it and hands its name down in the environment. In it lie the sockets on
which engine cores tell their metrics.
"""

import atexit
import fcntl
import functools
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # other trees have no handler

DIRECTORY_VARIABLE = "SARATHI_METRICS_DIR"

_PREFIX = "server-"


@functools.cache
def make_folder(pid: int) -> None:
    """Make a folder for what this process starts, and remove those of processes that were killed.

    Whoever makes it holds a shared lock on it for as long as it lives; most cleaners of old files
    respect that too.
    """
    os.environ.pop(DIRECTORY_VARIABLE, None)
    parent = Path(tempfile.gettempdir(), f"vllm-sarathi-{os.geteuid()}")  # sockets have short names
    try:
        make_private(parent)
        for left in parent.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        new = _new_folder(parent)
        hold(new)
        directory = new.rename(parent / (_PREFIX + new.name.removeprefix(".")))
    except OSError as error:
        logger.warning(
            "/metrics lacks the vllm_sarathi metrics: cannot make a folder in %s: %s", parent, error
        )
        return
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    atexit.register(_remove_own, directory, pid)


def _new_folder(parent: Path) -> Path:
    while True:
        make_private(parent)
        with suppress(FileNotFoundError):  # another server ended just now, the last of this user
            return Path(tempfile.mkdtemp(prefix=".", dir=parent))


def make_private(directory: Path) -> None:
    """Make a folder that nobody else can look or write into, unless it is there.

    Raises:
        OSError: it cannot be made, or others can.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise PermissionError(f"{directory} is not private to this user")


def hold(directory: Path) -> None:
    """Keep others from removing a folder while this process lives."""
    fcntl.flock(os.open(directory, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)


def _remove_if_left(directory: Path) -> None:
    """Remove a folder unless somebody holds it."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(directory)
        finally:
            os.close(descriptor)


def _remove_own(directory: Path, owner_pid: int) -> None:
    """Remove the folder, though not from a forked child that inherited the exit handler."""
    if os.getpid() == owner_pid:
        with suppress(OSError):
            _remove(directory)


def _remove(directory: Path) -> None:
    """Remove a folder of sockets, and none that has anything else."""
    for path in directory.glob("*.sock"):
        path.unlink(missing_ok=True)
    directory.rmdir()
    with suppress(OSError):  # others are in it
        directory.parent.rmdir()
