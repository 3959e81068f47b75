"""Several engines on the same requests, with confidence intervals."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

Task = TypeVar("Task")
Result = TypeVar("Result")
# What a task calls to say how far it is, with anything that can be pickled.
Tell = Callable[[Any], object]
# Seconds between two looks at what tasks told.
PROGRESS_S = 0.5


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % confidence interval by Student's t; no width for one value."""

    mean: float
    half_width: float | None
    num: int

    def __str__(self) -> str:
        if self.half_width is None:
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} ±{self.half_width:.2g}"


def interval(values: Sequence[float | None]) -> Interval | None:
    """Mean and confidence of the values that are defined; None if none is."""
    defined = np.array([value for value in values if value is not None], float)
    if not len(defined):
        return None
    if len(defined) == 1:
        return Interval(float(defined[0]), None, 1)
    from scipy import stats  # half a second, which a wrong argument need not wait for

    half = stats.t.ppf(0.975, len(defined) - 1) * stats.sem(defined)
    return Interval(float(defined.mean()), float(half), len(defined))


def paired_ratio(
    values: Sequence[float | None], baseline: Sequence[float | None]
) -> Interval | None:
    """Geometric mean of value / baseline over pairs of runs of the same seed.

    Pairing takes the load's own luck out. The interval is of the logarithm.
    """
    logs = [
        float(np.log(value / base))
        for value, base in zip(values, baseline, strict=True)
        if value and base
    ]
    found = interval(logs)
    if found is None:
        return None
    ratio = float(np.exp(found.mean))
    half = None if found.half_width is None else ratio * float(np.expm1(found.half_width))
    return Interval(ratio, half, found.num)


def run_all(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_jobs: int
) -> Iterator[tuple[int, Result]]:
    """Run tasks as ``run_watched`` does, with nobody watching."""
    return run_watched(_Unwatched(function), tasks, num_jobs, lambda index, progress: None)


@dataclass(frozen=True, slots=True)
class _Unwatched(Generic[Task, Result]):
    """A function that says nothing of its progress; a class, for it travels to processes."""

    function: Callable[[Task], Result]

    def __call__(self, task: Task, tell: Tell) -> Result:
        return self.function(task)


def run_watched(
    function: Callable[[Task, Tell], Result],
    tasks: Sequence[Task],
    num_jobs: int,
    on_progress: Callable[[int, Any], object],
) -> Iterator[tuple[int, Result]]:
    """Run tasks in processes of their own, or here if one job is allowed.

    Args:
        function: is given a task, and what to call with its progress.
        tasks: what it is given.
        num_jobs: most processes.
        on_progress: called here with a task's index and what the task told.

    Yields:
        The index of a task and its result, as they finish. Closing the iterator, or
        an interrupt, drops all others.
    """
    pull = partial(next, iter(enumerate(tasks)), None)
    return run_pulled(function, pull, min(num_jobs, len(tasks)), on_progress)


def run_pulled(
    function: Callable[[Task, Tell], Result],
    pull: Callable[[], tuple[int, Task] | None],
    num_jobs: int,
    on_progress: Callable[[int, Any], object],
) -> Iterator[tuple[int, Result]]:
    """As ``run_watched``, where results decide which tasks come next.

    Args:
        function: is given a task, and what to call with its progress.
        pull: the next task with its index, asked whenever there is room for one; None where
            there is nothing to do before another result, or at all.
        num_jobs: most processes.
        on_progress: called here with a task's index and what the task told.

    Yields:
        As ``run_watched``.
    """
    if num_jobs <= 1:
        while (pulled := pull()) is not None:
            index, task = pulled
            yield index, function(task, partial(on_progress, index))
        return
    with interruptible_pool(num_jobs) as (pool, told):
        futures: dict[Future[Result], int] = {}
        while True:
            with _interrupts_kept_from_children():
                while len(futures) < num_jobs and (pulled := pull()) is not None:
                    index, task = pulled
                    futures[pool.submit(_call, function, index, task)] = index
            if not futures:
                return
            done, _ = wait(futures, PROGRESS_S, FIRST_COMPLETED)
            while not told.empty():
                on_progress(*told.get())
            for future in done:
                yield futures.pop(future), future.result()


def _call(function: Callable[[Task, Tell], Result], index: int, task: Task) -> Result:
    """Run one task in a worker."""
    return function(task, lambda progress: _to_parent.put((index, progress)))


@contextmanager
def interruptible_pool(num_jobs: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """A process pool that an interrupt, or any other exception, ends at once.

    Yields:
        The pool, and the queue of what its tasks tell.
    """
    import multiprocessing

    # vLLM starts threads when it is imported: forking then would be unsafe.
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    pool = ProcessPoolExecutor(num_jobs, context, _prepare_worker, (told,))
    try:
        yield pool, told
    except BaseException:
        # Else the interpreter would wait at its exit for what the workers still run.
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    pool.shutdown()


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Let processes that start meanwhile ignore interrupts from their first moment on.

    A terminal interrupts all of them; this process decides what becomes of the others. One
    that comes meanwhile comes here afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_to_parent: Any = None  # the queue of a worker, set as it starts


def _prepare_worker(told: Any) -> None:
    """Let the parent process hear of progress, and leave the terminal to it."""
    global _to_parent
    _to_parent = told
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def default_num_jobs() -> int:
    """One for each core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def column(summaries: Sequence[dict[str, Any] | None], name: str) -> list[float | None]:
    """One figure of several runs; None where a run is missing."""
    return [None if summary is None else summary.get(name) for summary in summaries]
