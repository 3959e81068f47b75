"""One run: a workload through a scheduler on a deployment."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from vllm_sarathi.simulator.engine import shortcuts
from vllm_sarathi.simulator.engine.clock import VirtualClock
from vllm_sarathi.simulator.engine.loop import EngineLoop
from vllm_sarathi.simulator.engine.requests import RequestSource, block_hasher
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.engine.stretch import Stretch
from vllm_sarathi.simulator.load.workload import Workload
from vllm_sarathi.simulator.machine.pipeline import Pipeline
from vllm_sarathi.simulator.machine.step_cost import Deployment
from vllm_sarathi.simulator.results.recorder import Recorder, StepHistory, StopRule
from vllm_sarathi.simulator.results.report import Report

# Virtual time that a run may take beyond its last arrival: overload ends here.
DRAIN_S = 3600.0


def simulate(
    engine: EngineSettings,
    deployment: Deployment,
    workload: Workload,
    *,
    noise: float = 0.0,
    seed: int = 0,
    limit_s: float | None = None,
    stop_rule: StopRule | None = None,
    keep_steps: bool = False,
    stretches: bool = True,
    on_progress: Callable[[float], object] | None = None,
) -> Report:
    """Run a workload in virtual time through a real scheduler class.

    Deterministic for a seed as far as the scheduler is. Time functions, the
    environment and the garbage collector are as before when it returns or raises.

    Args:
        engine: which scheduler, and how vLLM is set up.
        deployment: what a step costs.
        workload: the requests.
        noise: standard deviation of every step's time, as a share of it.
        seed: of the noise.
        limit_s: virtual time at which the run ends at the latest; None: an hour
            after the last arrival.
        stop_rule: objectives whose miss ends the run early; None runs to the end.
        keep_steps: keep every step, for pictures.
        stretches: pass over stock vLLM's scheduler where steps are all alike.
        on_progress: told the share of all output tokens that have come, every few hundred
            steps.

    Raises:
        ValueError: an argument is wrong, or the scheduler refuses its settings.
        SchedulerDeadlockError: the scheduler schedules nothing any more.
    """
    check_arguments(engine, deployment, noise)
    started = perf_counter()
    workload.check_fits(deployment.max_model_len, deployment.num_kv_tokens, engine.block_size)
    recorder = Recorder(workload, stop_rule, StepHistory() if keep_steps else None, on_progress)
    with quiet_vllm(), without_garbage_collection():
        pipeline = Pipeline(deployment, noise, seed, engine.v2_model_runner)
        completed = _run(engine, pipeline, recorder, limit_s, stretches)
    return Report.of(engine.name, recorder, completed, pipeline, perf_counter() - started)


def check_arguments(engine: EngineSettings, deployment: Deployment, noise: float) -> None:
    """Refuse what would fail deep inside a run.

    Raises:
        ValueError: names the argument, its value and what is allowed.
    """
    for name, value, kind in (
        ("engine", engine, EngineSettings),
        ("deployment", deployment, Deployment),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name}={value!r} must be of the class {kind.__name__}")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise={noise!r} must be a share from 0 to 1")


def _run(
    engine: EngineSettings,
    pipeline: Pipeline,
    recorder: Recorder,
    limit_s: float | None,
    stretches: bool,
) -> bool:
    """Build a scheduler and run the loop around it; whether every request was done."""
    clock, deployment, workload = VirtualClock(), pipeline.deployment, recorder.workload
    if limit_s is None:
        limit_s = (float(workload.arrival_s[-1]) if len(workload) else 0.0) + DRAIN_S
    if engine.enable_prefix_caching is None:
        engine = replace(engine, enable_prefix_caching=workload.shares_prefixes)
    with gpu_engine(
        engine,
        len(deployment.stages),
        deployment.num_kv_tokens,
        deployment.max_model_len,
        deployment.kv_windows,
    ) as built:
        scheduler, config = built
        shortcuts.install(scheduler)
        source = RequestSource(workload, block_hasher(engine))
        most = config.max_concurrent_batches
        stretch = Stretch(scheduler, pipeline, clock, recorder, most) if stretches else None
        loop = EngineLoop(scheduler, pipeline, source, recorder, clock, most, limit_s, stretch)
        with clock.installed():
            completed = loop.run()
    return completed


@contextmanager
def quiet_vllm() -> Iterator[None]:
    """Keep vLLM's notes about building an engine out of the output; warnings too.

    All loggers are silenced: vLLM sets up its own anew whenever it makes a configuration.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Requests hold no cycles: collecting while they live only costs time.

    What was made meanwhile and is garbage at the end is collected then.
    """
    enabled = gc.isenabled()
    unfrozen = not gc.get_freeze_count()  # else the caller's own would thaw with ours
    if unfrozen:
        gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        if unfrozen:
            gc.unfreeze()
        if enabled:
            gc.enable()
