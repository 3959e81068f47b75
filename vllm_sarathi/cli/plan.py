"""``vllm-sarathi plan``: the cheapest deployment that serves a load."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vllm_sarathi.cli import options as given
from vllm_sarathi.cli.goals import goal_of
from vllm_sarathi.cli.progress import Watch
from vllm_sarathi.cli.tasks import Progress as Shown
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.load.traffic import Replay
from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.models import HUB_NAMES, MODELS
from vllm_sarathi.simulator.machine.prices import Price, read_prices
from vllm_sarathi.simulator.plan.around import look_around
from vllm_sarathi.simulator.plan.candidate import Candidate, candidates
from vllm_sarathi.simulator.plan.journal import Journal
from vllm_sarathi.simulator.plan.plan import Plan, Progress, Running, make_plan
from vllm_sarathi.simulator.plan.rows import Row, rows, serve_command
from vllm_sarathi.simulator.plan.search import MOST_FACTOR, Search
from vllm_sarathi.simulator.plan.trial import Demand, Outcome
from vllm_sarathi.simulator.results.comparison import default_num_jobs
from vllm_sarathi.simulator.results.notes import failed
from vllm_sarathi.simulator.results.tables import table
from vllm_sarathi.simulator.steady import STEADY

# Ours chooses its own budget below this; stock's is the best of these, with as many requests.
OURS = ("sarathi:8192",)
STOCK = tuple(
    f"stock:{budget},max_num_seqs={num_seqs}"
    for budget in (512, 1024, 2048, 8192)
    for num_seqs in (256, 128, 64, 32)
)
# Rows of the table of what else there is.
MOST_ROWS = 12


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
    names = [f"{one.deployment.name} {engine.name}" for one in found for engine in engines]
    watch = Watch(names)
    cheapest: dict[str, float] = {}
    open_choices = set(range(len(names)))

    def running(index: int, run: Running) -> None:
        best = "".join(f"; {name} from {usd:.2f} USD/h" for name, usd in cheapest.items())
        text = f"{run.num_replicas} replicas, {run.share:.0%}{best}"
        watch.told(index, Shown(0.0, text))

    def answered(search: Search, index: int, outcome: Outcome) -> None:
        one, engine = found[index // len(engines)], engines[index % len(engines)]
        if outcome["holds"]:
            usd = one.usd_per_hour * outcome["replicas"]
            name = engine.scheduler
            cheapest[name] = min(usd, cheapest.get(name, usd))
        for decided in filter(search.is_decided, sorted(open_choices)):
            open_choices.remove(decided)
            watch.done(decided)

    progress = Progress(running, answered)
    try:
        made = make_plan(found, engines, demand, num_jobs=jobs, journal=journal, progress=progress)
        look_around(made, jobs, journal, progress)
    finally:
        watch.close()
    return made


def text(options: argparse.Namespace, made: Plan, refused: Mapping[str, str]) -> str:
    """The plan for a reader: what to run, what it costs, what else there is."""
    found = rows(made)
    parts = [_table(found[:MOST_ROWS])]
    if len(found) > MOST_ROWS:
        parts.append(f"... and {len(found) - MOST_ROWS} more")
    if refused:
        parts.append(f"{len(refused)} more splits of GPUs cannot hold the model or the load.")
    parts += [_about(row) for row in found if row["headroom"] is not None or row["error"]]
    flags = {"--kv-cache-dtype": "fp8"} if options.kv_cache_dtype == "fp8" else {}
    for index in made.best:
        choice, option = made.choices[index], made.search.options[index]
        command = serve_command(_model_name(options.model), choice.candidate, choice.engine, flags)
        what = f"each of {option.holds} replicas behind a {options.router} router"
        if option.holds == 1:
            what = "one replica"
        if choice.candidate.num_gpus > GPUS[choice.candidate.gpu].num_in_server:
            what += ", over several servers (see vLLM on multi-node serving)"
        parts.append(f"# {what}\n{command}")
    if not made.best:
        parts.append(
            f"Nothing was found that serves the load within the objectives, with up to "
            f"{MOST_FACTOR} times the replicas that arithmetic needs."
        )
    return "\n\n".join(parts)


def _model_name(given_model: str) -> str:
    """What ``vllm serve`` calls a model: its folder, or its name on Hugging Face."""
    if given_model in MODELS:
        return HUB_NAMES.get(given_model, "MODEL")
    path = Path(given_model)
    return str(path.parent if path.name == "config.json" else path)


COLUMNS = (
    ("status", "load"),
    ("scheduler", "scheduler"),
    ("deployment", "deployment"),
    ("replicas", "replicas"),
    ("gpus", "GPUs"),
    ("usd_per_hour", "USD/h"),
    ("usd_per_1000_requests", "USD/1000 req"),
    ("utilisation", "used"),
    ("headroom", "headroom"),
    ("goodput", "goodput"),
    ("ttft_p99_s", "TTFT p99 s"),
    ("tpot_p99_ms", "TPOT p99 ms"),
    ("tbt_p99_ms", "TBT p99 ms"),
)


def _table(found: Sequence[Row]) -> str:
    shown = [[_shown(row, name) for name, _ in COLUMNS] for row in found]
    return table([heading for _, heading in COLUMNS], shown)


BOUNDS = ("replicas", "gpus", "usd_per_hour", "usd_per_1000_requests")


def _shown(row: Row, name: str) -> Any:
    """A cell; a bound where the search did not have to know more."""
    value = row[name]
    if name not in BOUNDS:
        return value
    if row["status"] != "serves":
        return f">= {value:.4g}"
    return f"<= {value:.4g}" if row["replicas_at_least"] < row["replicas"] else value


def _about(row: Row) -> str:
    """What binds, and how far the figures can be trusted."""
    lines = [f"{row['scheduler']} on {row['deployment']}: {row['source']}."]
    if row["error"]:
        lines.append(f"A run failed: {row['error']}")
    elif missed := row["missed_with_one_fewer"]:
        # What misses an objective alone says more than the share that misses any.
        each = [check for check in missed if check["figure"] != "goodput"] or missed
        lines.append(f"With one replica fewer, {failed(each)}.")
    elif row["replicas"] == 1:
        lines.append("One replica is enough.")
    if (share := row["warm_up_share"]) is not None and share > STEADY:
        lines.append(
            f"{share:.0%} of the requests came while the engines filled up: a load that goes on "
            "may need more."
        )
    return "\n".join(lines)
