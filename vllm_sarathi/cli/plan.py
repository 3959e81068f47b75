"""``vllm-sarathi plan``: the cheapest deployment that serves a load."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vllm_sarathi.cli import options as given
from vllm_sarathi.cli.goals import goal_of
from vllm_sarathi.cli.progress import Watch
from vllm_sarathi.cli.tasks import Progress
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.load.traffic import Replay
from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.prices import Price, read_prices
from vllm_sarathi.simulator.plan.around import look_around
from vllm_sarathi.simulator.plan.candidate import Candidate, candidates
from vllm_sarathi.simulator.plan.journal import Journal
from vllm_sarathi.simulator.plan.plan import (
    Callbacks,
    Plan,
    RunProgress,
    every_choice,
    make_plan,
)
from vllm_sarathi.simulator.plan.search import Search
from vllm_sarathi.simulator.plan.trial import Demand, Outcome
from vllm_sarathi.simulator.results.comparison import default_num_jobs

# Ours sizes each batch anew, up to this; stock vLLM gets the best of all these.
OURS = ("sarathi:8192",)
STOCK = tuple(
    f"stock:{budget},max_num_seqs={num_seqs}"
    for budget in (512, 1024, 2048, 8192)
    for num_seqs in (256, 128, 64, 32)
)


def plan(options: argparse.Namespace) -> tuple[Plan, dict[str, str], dict[str, Price]]:
    """Make the plan that the options ask for.

    Returns:
        The plan, why other deployments are no candidates, and the prices.

    Raises:
        ValueError: names the option that is wrong, or says that nothing can serve the load.
    """
    prices, demand = read_prices(options.prices), _demand(options)
    names = options.gpus or list(GPUS)
    for name in names:
        if name not in GPUS:
            raise ValueError(f"--gpus {name!r} must be one of {', '.join(GPUS)}")
    engines = given.engines(options, options.engines or [*OURS, *STOCK])
    found, refused = candidates(
        given.model_of(options),
        [GPUS[name] for name in names],
        {name: price.usd_per_gpu_hour for name, price in prices.items()},
        demand.traffic.at(demand.rate, demand.seeds[0]),
        options.max_model_len,
    )
    if not found:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in refused.items())
        raise ValueError(f"--model {options.model!r} can be served on none of the GPUs:\n{reasons}")
    journal = Journal(None if options.resume is None else Path(options.resume))
    jobs = options.jobs or default_num_jobs()
    return _watched(found, engines, demand, jobs, journal), refused, prices


def _demand(options: argparse.Namespace) -> Demand:
    load, goal = given.traffic(options), goal_of(options)
    rate = options.rate or (load.rate if isinstance(load, Replay) else 1.0)
    seeds = given.seeds_of(options)
    return Demand(load, rate, goal, options.router, tuple(seeds), options.noise)


def _watched(
    found: Sequence[Candidate],
    engines: Sequence[EngineSettings],
    demand: Demand,
    jobs: int,
    journal: Journal,
) -> Plan:
    """Make the plan while its user sees how far it is."""
    choices = every_choice(found, engines)
    watch = Watch([choice.name for choice in choices])
    cheapest: dict[str, float] = {}
    open_choices = set(range(len(choices)))

    def on_progress(index: int, run: RunProgress) -> None:
        best = "".join(f"; {name} from {usd:.2f} USD/h" for name, usd in cheapest.items())
        replicas = f"{run.num_replicas} replica{'s' * (run.num_replicas > 1)}"
        watch.told(index, Progress(0.0, f"{replicas}, {run.share:.0%}{best}"))

    def on_outcome(search: Search, index: int, outcome: Outcome) -> None:
        if outcome["holds"]:
            choice = choices[index]
            usd = choice.candidate.usd_per_hour * outcome["replicas"]
            name = choice.engine.scheduler
            cheapest[name] = min(usd, cheapest.get(name, usd))
        for decided in filter(search.is_decided, sorted(open_choices)):
            open_choices.remove(decided)
            watch.done(decided)

    calls = Callbacks(on_progress, on_outcome)
    try:
        made = make_plan(found, engines, demand, num_jobs=jobs, journal=journal, callbacks=calls)
        look_around(made, jobs, journal, calls)
    finally:
        watch.close()
    return made
