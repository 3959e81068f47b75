"""One run: a workload through a scheduler on a deployment."""

import gc
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from time import perf_counter

from vllm_sarathi.simulator.engine import shortcuts
from vllm_sarathi.simulator.engine.clock import VirtualClock
from vllm_sarathi.simulator.engine.fleet import ROUTERS, Replica, Routed, Router, run_fleet
from vllm_sarathi.simulator.engine.loop import EngineLoop, SchedulerDeadlockError
from vllm_sarathi.simulator.engine.requests import RequestSource, block_hasher
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.engine.speculation import Drafts
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
    num_replicas: int = 1,
    router: Router = "round-robin",
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
        seed: of the noise, and of which drafts are accepted.
        limit_s: virtual time at which the run ends at the latest; None: an hour
            after the last arrival.
        stop_rule: objectives whose miss ends the run early; None runs to the end.
        keep_steps: keep every step, for pictures.
        stretches: pass over stock vLLM's scheduler where steps are all alike.
        num_replicas: copies of the deployment behind a router.
        router: which of them gets a request, "round-robin" or "least-load".
        on_progress: told the share of all output tokens that have come, every few hundred
            steps.

    Raises:
        ValueError: an argument is wrong, or the scheduler refuses its settings.
        SchedulerDeadlockError: the scheduler schedules nothing any more.
    """
    check_arguments(engine, deployment, noise)
    if num_replicas < 1:
        raise ValueError(f"num_replicas={num_replicas!r} must be 1 or more")
    if router not in ROUTERS:
        raise ValueError(f"router={router!r} must be one of {', '.join(ROUTERS)}")
    started = perf_counter()
    num_in_flight = len(deployment.stages) + engine.async_scheduling
    workload.check_fits(
        deployment.max_model_len,
        deployment.num_kv_tokens,
        deployment.kv_windows,
        block_size=engine.block_size,
        in_flight_tokens=num_in_flight * engine.max_num_batched_tokens,
    )
    drafting_s = engine.speculation.drafting_s if engine.speculation else 0.0
    drafts = Drafts(engine.speculation, seed) if engine.speculation else None
    recorder = Recorder(workload, stop_rule, StepHistory() if keep_steps else None, on_progress)
    with quiet_vllm(), without_garbage_collection():
        pipelines = [
            Pipeline(deployment, noise, seed + 1000 * replica, engine.v2_model_runner, drafting_s)
            for replica in range(num_replicas)
        ]
        completed = _run(engine, pipelines, recorder, limit_s, stretches, router, drafts)
    return Report.of(engine.name, recorder, completed, pipelines, perf_counter() - started)


def reason(error: Exception) -> str:
    """Why a run failed: the message where it is meant for its user, else the traceback."""
    if isinstance(error, ValueError | SchedulerDeadlockError):
        return str(error)
    return "".join(traceback.format_exception(error))


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
    num_stages = len(deployment.stages)
    if engine.speculation and num_stages > 1 and not engine.async_scheduling:
        raise ValueError(
            f"async_scheduling=False must be True for speculation over {num_stages} stages: "
            "vLLM fetches the drafts after each step, which empties the pipeline"
        )


def _run(
    engine: EngineSettings,
    pipelines: Sequence[Pipeline],
    recorder: Recorder,
    limit_s: float | None,
    stretches: bool,
    router: Router,
    drafts: Drafts | None,
) -> bool:
    """Build a scheduler and a loop for each replica, and run them; whether all was done."""
    clock, workload = VirtualClock(), recorder.workload
    if limit_s is None:
        limit_s = (float(workload.arrival_s[-1]) if len(workload) else 0.0) + DRAIN_S
    if engine.enable_prefix_caching is None:
        engine = replace(engine, enable_prefix_caching=workload.shares_prefixes)
    source = RequestSource(workload, block_hasher(engine))
    replicas = []
    with ExitStack() as engines:
        for pipeline in pipelines:
            of = pipeline.deployment
            scheduler, config = engines.enter_context(
                gpu_engine(
                    engine, len(of.stages), of.num_kv_tokens, of.max_model_len, of.kv_windows
                )
            )
            shortcuts.install(scheduler)
            most, routed = config.max_concurrent_batches, Routed(source)
            stretch = Stretch(scheduler, pipeline, clock, recorder, most) if stretches else None
            loop = EngineLoop(
                scheduler, pipeline, routed, recorder, clock, most, limit_s, stretch, drafts
            )
            replicas.append(Replica(loop, routed))
        with clock.installed():
            return run_fleet(replicas, source, router, clock)


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
