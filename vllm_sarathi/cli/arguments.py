"""The command line. Imports nothing heavy, so that ``--help`` is quick."""

import argparse
from collections.abc import Mapping

from vllm_sarathi import __version__
from vllm_sarathi.cli.argument_groups import (
    ENGINE_HELP,
    GPUS,
    MODELS,
    add_engine,
    add_goal,
    add_jobs,
    add_json,
    add_kv_cache_dtype,
    add_load,
    add_many,
    add_noise,
    add_objectives,
    add_outputs,
)
from vllm_sarathi.cli.values import positive, rates, tokens, whole

COMMANDS = {
    "simulate": "one run: figures, and pictures if asked for",
    "compare": "several engines on the same requests, with confidence intervals",
    "capacity": "the highest rate that meets the objectives",
    "replay": "what other settings would have done to the requests of a live server",
    "tune": "the best static token budget of stock vLLM for a load",
    "plan": "the cheapest GPUs, parallelism and settings that serve a load within objectives",
    "calibrate": "a deployment out of the steps that a live server recorded",
    "report": "one HTML page about a step log: what was wrong, why, and what to set",
    "top": "a live view of running servers, stock ones too",
}
BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)
GOAL = "limit of the 99th percentile of"


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        "vllm-sarathi",
        description="Simulate vLLM schedulers, report on a step log, watch servers.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    added = {
        name: commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for name, text in COMMANDS.items()
    }
    _add_simulations(added)
    _add_replay(added["replay"])
    _add_plan(added["plan"])
    _add_calibrate(added["calibrate"])
    _add_report(added["report"])
    _add_top(added["top"])
    return top


def _add_simulations(added: Mapping[str, argparse.ArgumentParser]) -> None:
    """What simulates engines on one deployment."""
    for name in ("simulate", "compare"):
        load = add_load(added[name], "requests per second", "how many")
        load.add_argument("--at-once", action="store_true", help="all requests at time 0")
        if name == "compare":
            load.add_argument(
                "--rates", type=rates, metavar="R,R...", help="several, instead of --rate"
            )
        add_objectives(load, "objective for")
    for name in ("capacity", "tune"):
        load = add_load(
            added[name],
            "requests per second to start the search at",
            "how many, or more where so few would not be steady",
        )
        add_objectives(load, GOAL)
    for name in ("simulate", "compare", "capacity", "tune"):
        add_engine(added[name])
    added["simulate"].add_argument("engine", metavar="ENGINE", help=ENGINE_HELP)
    for name in ("simulate", "compare", "capacity"):
        added[name].add_argument("--plots", metavar="DIR", help="draw pictures into this folder")
    for name in ("compare", "capacity"):
        added[name].add_argument("engines", nargs="+", metavar="ENGINE", help=ENGINE_HELP)
    for name in ("compare", "capacity", "tune"):
        add_many(added[name])
    add_goal(added["capacity"])
    add_goal(added["tune"])
    added["tune"].add_argument(
        "--budgets", type=tokens, default=BUDGETS, metavar="N,N...",
        help=f"token budgets to try (default {', '.join(map(str, BUDGETS))})",
    )  # fmt: skip


def _add_replay(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "steps", metavar="STEPLOG",
        help="written by --sarathi-step-log FILE; --sarathi-preset observe records stock vLLM",
    )  # fmt: skip
    command.add_argument(
        "engines", nargs="*", metavar="ENGINE",
        help=f"{ENGINE_HELP}. What it leaves out is as recorded",
    )  # fmt: skip
    options = command.add_argument_group("replay")
    options.add_argument(
        "--deployment", metavar="NAME",
        help="GPU and model, as for 'simulate' (default: calibrated on the log)",
    )  # fmt: skip
    add_objectives(options, "objective for")
    add_outputs(options)
    add_jobs(options)
    command.set_defaults(trace=None, noise=0.0, seed=0, seeds=1)


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "engines", nargs="*", metavar="ENGINE",
        help=f"to choose from: {ENGINE_HELP} (default: sarathi:8192, and 'stock' with each of "
        "several token budgets and limits of running requests)",
    )  # fmt: skip
    load = add_load(
        command,
        "requests per second of all replicas together",
        "how many for each replica, or more where so few would not be steady; of a trace in all",
    )
    add_objectives(load, GOAL)
    add_goal(command, searches=False)
    fleet = command.add_argument_group("what there is to choose from")
    fleet.add_argument(
        "--model", required=True, metavar="FILE|NAME",
        help=f"a Hugging Face config.json, its folder, or {MODELS}",
    )  # fmt: skip
    add_kv_cache_dtype(fleet)
    fleet.add_argument("--gpus", nargs="+", metavar="NAME", help=f"kinds of GPUs (default {GPUS})")
    fleet.add_argument(
        "--prices", metavar="FILE",
        help="CSV with the columns gpu and usd_per_gpu_hour (default, also for GPUs that it lacks: "
        "what large clouds ask on demand)",
    )  # fmt: skip
    fleet.add_argument(
        "--max-model-len", type=whole, metavar="N",
        help="most tokens of a request (default: the model's)",
    )  # fmt: skip
    fleet.add_argument(
        "--router", choices=("round-robin", "least-load"), default="round-robin",
        help="how replicas share the load (default %(default)s)",
    )  # fmt: skip
    run = command.add_argument_group("runs")
    add_noise(run)
    run.add_argument(
        "--seeds", type=whole, default=2, metavar="N",
        help="how many a choice has to meet the goal with (default %(default)s)",
    )  # fmt: skip
    add_jobs(run)
    run.add_argument(
        "--resume", metavar="FILE", help="keeps the runs that are done, and goes on from them"
    )
    run.add_argument("--plots", metavar="DIR", help="draw cost against latency into this folder")
    add_json(run)
    command.set_defaults(sync=False, max_num_seqs=None, limit_s=None)


def _add_calibrate(command: argparse.ArgumentParser) -> None:
    command.add_argument("steps", metavar="FILE", help="written by --sarathi-step-log FILE")
    command.add_argument(
        "--output", "-o", required=True, metavar="FILE", help="deployment to write"
    )
    command.add_argument("--name", default="calibrated", help="what reports call it")
    command.add_argument(
        "--kv-tokens", type=whole, metavar="N",
        help="tokens in the KV cache, vLLM's 'GPU KV cache size' (default: as the step log says)",
    )  # fmt: skip
    command.add_argument(
        "--max-model-len", type=whole, metavar="N",
        help="longest request in tokens (default: as the step log says)",
    )  # fmt: skip
    command.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the fit as JSON")


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("steps", metavar="STEPLOG", help="written by --sarathi-step-log FILE")
    command.add_argument(
        "--output", "-o", metavar="FILE", help="page to write (default: STEPLOG with .html)"
    )


def _add_top(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "servers", nargs="+", metavar="URL", help="HOST:PORT or a URL; /metrics may be left out"
    )
    command.add_argument(
        "--interval", type=positive, default=2.0, metavar="S",
        help="seconds from one scrape to the next (default 2)",
    )  # fmt: skip
    command.add_argument("--once", action="store_true", help="print one view, after two scrapes")
