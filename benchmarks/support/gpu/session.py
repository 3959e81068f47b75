"""A server and the loads that it gets, each of which becomes a result."""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from support.gpu.record import Figures, Record, gist
from support.gpu.setup import Setup
from support.server import Server, serve

from vllm_sarathi.report.lines import Begin, Step, StepLogFile

LIMIT_S = 600
SETTLE_S = 3  # the driver frees the memory of a process that was ended a moment later


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs.

    Attributes:
        setup: what it is of.
        server: the server.
        folder: for files of this session.
    """

    setup: Setup
    server: Server
    folder: Path

    def steps(self) -> list[Step]:
        """What the step log holds so far, without its first line and faults."""
        return [step for step in StepLogFile(step_log(self.folder)) if step.work is not None]

    def begin(self) -> Begin:
        """What the step log says of the engine."""
        found = (step.begin for step in StepLogFile(step_log(self.folder)))
        return next(begin for begin in found if begin is not None)


Load = Callable[[Running], Figures]


@dataclass(frozen=True, slots=True)
class Session:
    """Loads, by the key of their result, and the flags of the server that gets them."""

    flags: tuple[str, ...]
    loads: Mapping[str, Load]
    warm_up: Load
    logs_steps: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A result that no server is needed for."""

    key: str
    run: Callable[[], Figures]


def step_log(folder: Path) -> Path:
    """Where a session's server logs its steps."""
    return folder / "steps.jsonl"


def run(work: Session | Job, setup: Setup, record: Record) -> None:
    """Get the results that are not there yet; what fails is recorded, and the rest goes on."""
    if isinstance(work, Job):
        if work.key not in record:
            attempt(work.key, record, work.run)
        return
    missing = {key: load for key, load in work.loads.items() if key not in record}
    if not missing:
        return
    try:
        with started(work, setup) as server:
            for key, load in missing.items():
                attempt(key, record, partial(load, server))
    except Exception as error:
        for key in missing:
            if key not in record:
                record.fail(key, error)
        print(f"the server failed: {gist(f'{type(error).__name__}: {error}')}", flush=True)


@contextmanager
def started(work: Session, setup: Setup) -> Iterator[Running]:
    """A server that has had its warm-up, in which it compiles and ours learns step times."""
    with tempfile.TemporaryDirectory(prefix="gpu-benchmark-") as name:
        folder = Path(name)
        log = ("--sarathi-step-log", str(step_log(folder))) if work.logs_steps else ()
        print(f"starting vllm serve {' '.join(work.flags)}", flush=True)
        with serve(setup.model, (*setup.flags, *work.flags, *log)) as server:
            running = Running(setup, server, folder)
            with limited():
                work.warm_up(running)
            yield running
        if setup.gpu:
            time.sleep(SETTLE_S)


def attempt(key: str, record: Record, load: Callable[[], Figures]) -> None:
    """Keep what a load gives, or why it gives nothing."""
    began_s = time.monotonic()
    try:
        with limited():
            figures = load()
    except Exception as error:
        record.fail(key, error)
        print(f"{key}: failed: {gist(f'{type(error).__name__}: {error}')}", flush=True)
        return
    record.add(key, {**figures, "seconds": round(time.monotonic() - began_s, 1)})
    print(f"{key}: done in {time.monotonic() - began_s:.0f} s", flush=True)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, which ends with the call, done or not."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found, error = ours.recv()
    except EOFError:
        raise RuntimeError(f"the process of {function.__name__} ended without a result") from None
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error
    return found


def answer(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Send what a function returns, or what it raises."""
    try:
        pipe.send((function(*arguments), None))
    except Exception as error:
        pipe.send((None, error))


@contextmanager
def limited(limit_s: float = LIMIT_S) -> Iterator[None]:
    """Raise ``TimeoutError`` where the block takes too long."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
