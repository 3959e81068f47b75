"""What the rows ask of vLLM's real scheduler classes in virtual time, where no CPU engine can.

The made-up model of ``SchedulerLoop`` makes each token out of all before it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.features.asks import LENGTHS, Result
from tests.support.clock import Clock, virtual_time
from tests.support.scheduler_loop import SchedulerLoop
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.step import BatchLimit, BatchSize, StepView

STEP_S, TOKEN_S = 0.001, 0.0001
INTERVAL = 4
LONGER = 10
IMAGE_TOKENS, ENCODER_BUDGET = 60, 100


def ask_scheduler(scheduler_class: type, settings: dict[str, Any] | None, ask: str) -> Result:
    """The result of an ask, from a scheduler of such a class; None as settings is vLLM's own."""
    with virtual_time() as clock:
        found: Result = globals()[ask](scheduler_class, settings, clock)
        return found


def prompts(scheduler_class: type, settings: dict[str, Any] | None, clock: Clock) -> Result:
    """Prompts of all lengths; with async scheduling a step is scheduled while one runs."""
    return _run(SchedulerLoop(scheduler_class, settings), clock, {})


def throttled(scheduler_class: type, settings: dict[str, Any] | None, clock: Clock) -> Result:
    """Three of four steps may not begin a prefill, as the engine core asks it."""
    loop = SchedulerLoop(scheduler_class, settings, prefill_schedule_interval=INTERVAL)
    schedule, num_throttled = loop.scheduler.schedule, 0

    def throttle() -> Any:
        nonlocal num_throttled
        is_throttled = loop.scheduler.current_step % INTERVAL != 0
        num_throttled += is_throttled
        return schedule(is_throttled)

    loop.scheduler.schedule = throttle
    return _run(loop, clock, {"throttled steps": lambda: num_throttled})


def pauses(scheduler_class: type, settings: dict[str, Any] | None, clock: Clock) -> Result:
    """Decodes sit out two of three batches, as with vLLM's second model runner they may."""
    loop = SchedulerLoop(scheduler_class, settings)
    if settings is None:
        return _run(loop, clock, {}, times=LONGER)
    scheduler = loop.scheduler
    builder = StallFree(lambda view: BatchSize(256, BatchLimit.TILE, _sits_out(scheduler, view)))
    scheduler.batch_policy = replace(scheduler.batch_policy, builder=builder, pauses_decodes=True)
    schedule, num_paused = scheduler.schedule, 0

    def count() -> Any:
        nonlocal num_paused
        output = schedule()
        plan, _ = scheduler.step_observer.last
        num_paused += len(plan.skipped_decodes)
        return output

    scheduler.schedule = count
    return _run(loop, clock, {"decodes paused": lambda: num_paused}, times=LONGER)


def _sits_out(scheduler: Any, view: StepView) -> bool:
    return view.may_pause and scheduler.current_step % 3 != 0


def images(scheduler_class: type, settings: dict[str, Any] | None, clock: Clock) -> Result:
    """Every other prompt holds images, more of them than the encoder takes in a step."""
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
    from vllm.v1.core.encoder_cache_manager import EncoderCacheManager

    loop = SchedulerLoop(scheduler_class, settings)
    loop.scheduler.max_num_encoder_input_tokens = ENCODER_BUDGET
    loop.scheduler.encoder_cache_manager = EncoderCacheManager(cache_size=3 * ENCODER_BUDGET)
    num_encoded = 0
    schedule = loop.scheduler.schedule

    def count() -> Any:
        nonlocal num_encoded
        output = schedule()
        num_encoded += sum(map(len, output.scheduled_encoder_inputs.values()))
        return output

    def features(index: int, num_prompt: int) -> list[Any]:
        places = range(2, num_prompt - IMAGE_TOKENS, IMAGE_TOKENS + 5) if index % 2 else ()
        return [
            MultiModalFeatureSpec(
                data=None,
                modality="image",
                identifier=f"image {index} {place}",
                mm_position=PlaceholderRange(offset=place, length=IMAGE_TOKENS),
            )
            for place in places
        ]

    loop.scheduler.schedule = count
    return _run(loop, clock, {"images encoded": lambda: num_encoded}, features)


def _run(
    loop: SchedulerLoop,
    clock: Clock,
    counts: dict[str, Callable[[], int]],
    features: Callable[[int, int], list[Any]] = lambda index, num_prompt: [],
    times: int = 1,
) -> Result:
    """Prompts of all lengths, so many times as long, one every other step, until all are done."""
    for index, num_prompt in enumerate(times * length for length in LENGTHS * 2):
        loop.add(
            f"request {index}", num_prompt, max_tokens=16, arrival_time=clock.now_s,
            mm_features=features(index, num_prompt),
        )  # fmt: skip
        for _ in range(2):
            _step(loop, clock)
    while loop.scheduler.has_unfinished_requests() or loop.queue:
        _step(loop, clock)
    return Result(
        [loop.outputs[name] for name in sorted(loop.outputs)],
        {name: count() for name, count in counts.items()},
    )


def _step(loop: SchedulerLoop, clock: Clock) -> None:
    output = loop.step()
    num_tokens = output.total_num_scheduled_tokens if output else 0
    clock.now_s += STEP_S + TOKEN_S * num_tokens
