"""The command line. Imports nothing heavy, so that ``--help`` is quick."""

import argparse

from vllm_sarathi import __version__
from vllm_sarathi.cli.argument_groups import (
    GPUS,
    MODELS,
    SCHEDULER_HELP,
    add_engine,
    add_goal,
    add_jobs,
    add_kv_cache_dtype,
    add_load,
    add_many,
    add_objectives,
    add_outputs,
)
from vllm_sarathi.cli.values import noise, positive, tokens, whole

COMMANDS = {
    "simulate": "one run: figures, and pictures if asked for",
    "compare": "several schedulers on the same requests, with confidence intervals",
    "capacity": "the highest rate that meets the objectives",
    "replay": "what other settings would have done to the requests of a live server",
    "tune": "the best static token budget of stock vLLM for a load",
    "plan": "the cheapest GPUs, parallelism and settings that serve a load within objectives",
    "calibrate": "a deployment out of the steps that a live server recorded",
    "report": "one HTML page about a step log: what was wrong, why, and what to set",
    "top": "a live view of running servers, stock ones too",
}


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
    for name in ("simulate", "compare"):
        load = add_load(added[name], has_rate=True)
        load.add_argument("--at-once", action="store_true", help="all requests at time 0")
        add_objectives(load, "objective for")
    for name in ("capacity", "tune", "plan"):
        load = add_load(added[name], has_rate=name == "plan")
        add_objectives(load, "most that the 99th percentile may be of")
    for name in ("simulate", "compare", "capacity", "tune"):
        add_engine(added[name])
    added["simulate"].add_argument("scheduler", metavar="SCHEDULER", help=SCHEDULER_HELP)
    for name in ("simulate", "compare", "capacity"):
        added[name].add_argument("--plots", metavar="DIR", help="draw pictures into this folder")
    for name in ("compare", "capacity"):
        added[name].add_argument("schedulers", nargs="+", metavar="SCHEDULER", help=SCHEDULER_HELP)
    _add_replay(added["replay"])
    for name in ("compare", "capacity", "tune"):
        add_many(added[name])
    add_goal(added["capacity"])
    add_goal(added["tune"])
    added["tune"].add_argument(
        "--budgets", type=tokens, default=BUDGETS, metavar="N,N...",
        help=f"token budgets to try (default {', '.join(map(str, BUDGETS))})",
    )  # fmt: skip
    _add_plan(added["plan"])
    _add_calibrate(added["calibrate"])
    _add_report(added["report"])
    _add_top(added["top"])
    return top


BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)


def _add_replay(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "steps", metavar="STEPLOG",
        help="written by --sarathi-step-log FILE, with --sarathi-preset observe of stock vLLM",
    )  # fmt: skip
    command.add_argument(
        "schedulers", nargs="*", metavar="SCHEDULER",
        help=f"{SCHEDULER_HELP}. What a word leaves out is as recorded",
    )  # fmt: skip
    options = command.add_argument_group("replay")
    options.add_argument(
        "--deployment", metavar="NAME",
        help="GPU and model, as of 'simulate' (default: calibrated from the log)",
    )  # fmt: skip
    add_objectives(options, "objective for")
    add_outputs(options)
    add_jobs(command)
    command.set_defaults(trace=None, noise=0.0, seed=0, seeds=1)


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "schedulers", nargs="*", metavar="SCHEDULER",
        help=f"to choose from: {SCHEDULER_HELP} (default: 'sarathi', and 'stock' with each of "
        "several token budgets and limits of running requests)",
    )  # fmt: skip
    add_goal(command, searches=False)
    fleet = command.add_argument_group("what there is to choose from")
    fleet.add_argument(
        "--model", required=True, metavar="FILE|NAME",
        help=f"a config.json of Hugging Face, its folder, or {MODELS}",
    )  # fmt: skip
    add_kv_cache_dtype(fleet)
    fleet.add_argument("--gpus", nargs="+", metavar="NAME", help=f"kinds of GPUs (default {GPUS})")
    fleet.add_argument(
        "--prices", metavar="FILE",
        help="CSV with the columns gpu and usd_per_gpu_hour (default: list prices of large clouds)",
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
    run.add_argument("--noise", type=noise, default=0.0, help="of a step's time, e.g. 0.02")
    run.add_argument(
        "--seeds", type=whole, default=2, help="with which a choice must hold (default %(default)s)"
    )
    run.add_argument("--jobs", type=whole, help="processes at a time (default: one a core)")
    run.add_argument(
        "--resume", metavar="FILE", help="keeps the runs that are done, and goes on from them"
    )
    run.add_argument("--plots", metavar="DIR", help="draw cost against latency into this folder")
    run.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="figures as JSON, to a file or here"
    )
    command.set_defaults(sync=False, max_num_seqs=None, limit_s=None)


def _add_calibrate(command: argparse.ArgumentParser) -> None:
    command.add_argument("steps", metavar="FILE", help="written by --sarathi-step-log FILE")
    command.add_argument(
        "--output", "-o", required=True, metavar="FILE", help="deployment to write"
    )
    command.add_argument("--name", default="calibrated", help="what reports call it")
    command.add_argument(
        "--kv-tokens", type=whole, help="tokens in the KV cache (default: as the log says)"
    )
    command.add_argument(
        "--max-model-len", type=whole, help="longest request in tokens (default: as the log says)"
    )
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
