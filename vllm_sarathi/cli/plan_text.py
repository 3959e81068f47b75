"""A plan for its reader: what to run, what it costs, what else there is."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.models import HUB_NAMES, MODELS
from vllm_sarathi.simulator.plan.plan import Plan
from vllm_sarathi.simulator.plan.rows import Row, rows, serve_command
from vllm_sarathi.simulator.plan.search import MOST_FACTOR
from vllm_sarathi.simulator.results.notes import failed
from vllm_sarathi.simulator.results.tables import table
from vllm_sarathi.simulator.steady import STEADY

# Rows of the table of what else there is.
MOST_ROWS = 12
COLUMNS = (
    ("status", "status"),
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
LEGEND = (
    "used: share of the rate that arithmetic and memory bandwidth allow; headroom: how much more "
    "load is served too, found in steps;\n>= and <=: bounds, where the search stopped because the "
    "best costs no more."
)
BOUNDS = ("replicas", "gpus", "usd_per_hour", "usd_per_1000_requests")
SHARES = ("utilisation", "headroom")


def text(options: argparse.Namespace, made: Plan, refused: Mapping[str, str]) -> str:
    """The plan for a reader: what to run, what it costs, what else there is."""
    found = rows(made)
    load = f"{made.demand.traffic.name}, {made.demand.rate:.4g} requests/s"
    parts = [f"Load: {load}.", _table(found[:MOST_ROWS])]
    if len(found) > MOST_ROWS:
        parts.append(f"... and {len(found) - MOST_ROWS} more")
    if refused:
        parts.append(f"{len(refused)} more splits of GPUs cannot hold the model or the load.")
    parts.append(LEGEND)
    parts += [_about(row) for row in found if row["headroom"] is not None or row["error"]]
    parts += [_command(options, made, index) for index in made.best]
    if not made.best:
        parts.append(
            f"Nothing was found that serves the load within the objectives, with up to "
            f"{MOST_FACTOR} times the replicas that arithmetic needs."
        )
    return "\n\n".join(parts)


def _command(options: argparse.Namespace, made: Plan, index: int) -> str:
    """The command that starts a replica of a choice, and how many there have to be."""
    choice, option = made.choices[index], made.search.options[index]
    flags = {"--kv-cache-dtype": "fp8"} if options.kv_cache_dtype == "fp8" else {}
    command = serve_command(_model_name(options.model), choice.candidate, choice.engine, flags)
    what = f"each of {option.holds} replicas behind a {options.router} router"
    if option.holds == 1:
        what = "one replica"
    if choice.candidate.num_gpus > GPUS[choice.candidate.gpu].num_in_server:
        what += ", over several servers (see vLLM on multi-node serving)"
    return f"# {what}\n{command}"


def _model_name(given_model: str) -> str:
    """What ``vllm serve`` calls a model: its folder, or its name on Hugging Face."""
    if given_model in MODELS:
        return HUB_NAMES.get(given_model, "MODEL")
    path = Path(given_model)
    return str(path.parent if path.name == "config.json" else path)


def _table(found: Sequence[Row]) -> str:
    shown = [[_shown(row, name) for name, _ in COLUMNS] for row in found]
    return table([heading for _, heading in COLUMNS], shown)


def _shown(row: Row, name: str) -> Any:
    """A cell; a bound where the search did not have to know more."""
    value = row[name]
    if name in SHARES and value is not None:
        return f"{value:.0%}"
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
