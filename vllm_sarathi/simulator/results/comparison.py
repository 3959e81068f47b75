"""Several engines on the same requests, with confidence intervals."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import stats

Task = TypeVar("Task")
Result = TypeVar("Result")


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
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    num_jobs: int,
    on_done: Callable[[], object] = lambda: None,
) -> Iterator[tuple[int, Result]]:
    """Run tasks in processes of their own, or here if one job is allowed.

    Yields:
        The index of a task and its result, as they finish. Closing the iterator, or
        an interrupt, drops all others.
    """
    if num_jobs == 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, function(task)
            on_done()
        return
    with interruptible_pool(min(num_jobs, len(tasks))) as pool:
        futures = {pool.submit(function, task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
            on_done()


@contextmanager
def interruptible_pool(num_jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A process pool that an interrupt, or any other exception, ends at once."""
    import multiprocessing

    # vLLM starts threads when it is imported: forking then would be unsafe.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_jobs, mp_context=context, initializer=_prepare_worker)
    try:
        yield pool
    except BaseException:
        # Else the interpreter would wait at its exit for what the workers still run.
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    pool.shutdown()


def _prepare_worker() -> None:
    """Leave interrupts to the parent process, and the terminal to its progress bar."""
    import signal

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def default_num_jobs() -> int:
    """One for each core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def column(summaries: Sequence[dict[str, Any] | None], name: str) -> list[float | None]:
    """One figure of several runs; None where a run is missing."""
    return [None if summary is None else summary.get(name) for summary in summaries]
