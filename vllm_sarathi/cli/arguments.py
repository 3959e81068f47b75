"""The command line. Imports nothing heavy, so that ``--help`` is quick."""

import argparse

from vllm_sarathi import __version__
from vllm_sarathi.cli.values import noise, positive, seed, share, tokens, whole

COMMANDS = {
    "simulate": "one run: figures, and pictures if asked for",
    "compare": "several schedulers on the same requests, with confidence intervals",
    "capacity": "the highest rate that meets the objectives",
    "tune": "the best static token budget of stock vLLM for a load",
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
    for name in ("simulate", "compare", "capacity", "tune"):
        _add_load(added[name], has_rate=name in ("simulate", "compare"))
        _add_engine(added[name])
    added["simulate"].add_argument("scheduler", metavar="SCHEDULER", help=SCHEDULER_HELP)
    added["simulate"].add_argument("--plots", metavar="DIR", help="draw pictures into this folder")
    for name in ("compare", "capacity"):
        added[name].add_argument("schedulers", nargs="+", metavar="SCHEDULER", help=SCHEDULER_HELP)
    for name in ("compare", "capacity", "tune"):
        _add_many(added[name])
    _add_goal(added["capacity"])
    _add_goal(added["tune"])
    added["tune"].add_argument(
        "--budgets", type=tokens, default=BUDGETS, metavar="N,N...",
        help=f"token budgets to try (default {', '.join(map(str, BUDGETS))})",
    )  # fmt: skip
    _add_calibrate(added["calibrate"])
    _add_report(added["report"])
    _add_top(added["top"])
    return top


# What GPUs and models there are: listed here too, since ``--help`` imports nothing.
GPUS = "a100, a100-40gb, h100, h200, b200, l4, l40s, a10g, mi300x"
MODELS = "llama-3-8b, llama-3-70b, llama-2-70b, mistral-7b, gpt-3, mixtral-8x7b, deepseek-v3"
BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)
SCHEDULER_HELP = (
    "NAME[:BUDGET][,KEY=VALUE...]: 'stock', 'sarathi' or the dotted path of a scheduler class; "
    "vLLM's max_num_batched_tokens (default 2048); settings, e.g. sarathi:2048,tbt_slo_ms=50 or "
    "stock:512,max_num_seqs=128"
)


TRACE_HELP = (
    "a recorded load instead: .csv with the columns arrived_at, num_prefill_tokens and "
    "num_decode_tokens, or .jsonl with the keys timestamp, input_length, output_length and, "
    "where prompts share prefixes, hash_ids"
)


def _add_load(command: argparse.ArgumentParser, has_rate: bool) -> None:
    load = command.add_argument_group("load")
    load.add_argument(
        "--workload",
        help="lengths: sharegpt, arxiv, conversation, code, zipf[:PD], fixed:PROMPT,OUTPUT or, "
        "beyond the deployments' --max-model-len, agentic, long-among-short (default conversation)",
    )  # fmt: skip
    load.add_argument("--trace", metavar="FILE", help=TRACE_HELP)
    load.add_argument(
        "--trace-time-unit-s", type=positive, metavar="S",
        help="seconds in a unit of the trace's times (default 1)",
    )  # fmt: skip
    load.add_argument(
        "--trace-hash-tokens", type=whole, metavar="N",
        help="prompt tokens that one of a trace's hash_ids stands for (default 16; 512 in "
        "Mooncake's)",
    )  # fmt: skip
    rate = "requests per second" if has_rate else "requests per second to start the search at"
    load.add_argument("--rate", type=positive, help=f"{rate} (default 1, or a trace's own)")
    more = "" if has_rate else "; more where so few would not be steady"
    load.add_argument(
        "--requests", type=whole, help=f"how many (default 1000, or the whole trace{more})"
    )
    load.add_argument(
        "--cv", type=float, help="burstiness: 0 even, 1 Poisson (the default), >1 bursty"
    )
    load.add_argument("--shape", choices=("steady", "ramp", "diurnal"), help="(default steady)")
    if has_rate:
        load.add_argument("--at-once", action="store_true", help="all requests at time 0")
    load.add_argument("--seed", type=seed, default=0, help="of lengths, times and noise")
    load.add_argument("--tbt-slo-ms", type=positive, help="objective for the time between tokens")
    load.add_argument("--tpot-slo-ms", type=positive, help="objective for the mean time per token")
    load.add_argument("--ttft-slo-ms", type=positive, help="objective for the first token")


def _add_engine(command: argparse.ArgumentParser) -> None:
    engine = command.add_argument_group("engine")
    engine.add_argument(
        "--deployment", metavar="NAME",
        help="GPU-MODEL[-tpN][-ppN] with a name of --gpu and one of --model, e.g. "
        "h100-llama-2-70b-tp4, or a file of 'calibrate' (default a100-llama-3-8b)",
    )  # fmt: skip
    engine.add_argument(
        "--model", metavar="FILE|NAME",
        help=f"instead, with --gpu: a config.json of Hugging Face, its folder, or {MODELS}",
    )  # fmt: skip
    engine.add_argument("--gpu", metavar="NAME", help=f"{GPUS}; all but a100 and h100 estimated")
    engine.add_argument(
        "--tensor-parallel-size", type=whole, metavar="N", help="GPUs of a stage (default 1)"
    )
    engine.add_argument("--stages", type=whole, metavar="N", help="pipeline stages (default 1)")
    engine.add_argument(
        "--kv-cache-dtype", choices=("auto", "fp8"), help="auto: 2 bytes a value (the default)"
    )
    engine.add_argument(
        "--max-model-len", type=whole, metavar="N",
        help="most tokens of a request (default: the deployment's own; 32768 for models by name)",
    )  # fmt: skip
    engine.add_argument(
        "--max-num-seqs", type=whole, metavar="N",
        help="most requests that run at once (default 256, or the token budget if that is less)",
    )  # fmt: skip
    engine.add_argument("--sync", action="store_true", help="no asynchronous scheduling")
    engine.add_argument("--noise", type=noise, default=0.0, help="of a step's time, e.g. 0.02")
    engine.add_argument("--limit-s", type=positive, help="virtual time at which a run ends")
    engine.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="figures as JSON, to a file or here"
    )


def _add_many(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=whole, default=3, help="runs each (default %(default)s)")
    command.add_argument("--jobs", type=whole, help="processes at a time (default: one a core)")


def _add_goal(command: argparse.ArgumentParser) -> None:
    goal = command.add_argument_group("goal")
    goal.add_argument(
        "--delay-s", type=positive, default=2.0, help="median scheduling delay (default 2)"
    )
    goal.add_argument("--goodput", type=share, help="share of requests to meet every objective")
    goal.add_argument("--precision", type=positive, help="of the rate found (default 0.02)")


def _add_calibrate(command: argparse.ArgumentParser) -> None:
    command.add_argument("steps", metavar="FILE", help="written by --sarathi-step-log FILE")
    command.add_argument(
        "--output", "-o", required=True, metavar="FILE", help="deployment to write"
    )
    command.add_argument("--name", default="calibrated", help="what reports call it")
    command.add_argument("--kv-tokens", type=whole, required=True, help="tokens in the KV cache")
    command.add_argument("--max-model-len", type=whole, required=True, help="tokens")
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
