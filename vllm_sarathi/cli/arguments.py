"""The command line. Imports nothing heavy, so that ``--help`` is quick."""

import argparse

from vllm_sarathi import __version__
from vllm_sarathi.cli.values import noise, objective, positive, rates, seed, share, tokens, whole

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
        load = _add_load(added[name], has_rate=True)
        load.add_argument("--at-once", action="store_true", help="all requests at time 0")
        _add_objectives(load, "objective for")
    for name in ("capacity", "tune", "plan"):
        load = _add_load(added[name], has_rate=name == "plan")
        _add_objectives(load, "most that the 99th percentile may be of")
    for name in ("simulate", "compare", "capacity", "tune"):
        _add_engine(added[name])
    added["simulate"].add_argument("scheduler", metavar="SCHEDULER", help=SCHEDULER_HELP)
    for name in ("simulate", "compare", "capacity"):
        added[name].add_argument("--plots", metavar="DIR", help="draw pictures into this folder")
    for name in ("compare", "capacity"):
        added[name].add_argument("schedulers", nargs="+", metavar="SCHEDULER", help=SCHEDULER_HELP)
    _add_replay(added["replay"])
    for name in ("compare", "capacity", "tune"):
        _add_many(added[name])
    _add_goal(added["capacity"])
    _add_goal(added["tune"])
    added["tune"].add_argument(
        "--budgets", type=tokens, default=BUDGETS, metavar="N,N...",
        help=f"token budgets to try (default {', '.join(map(str, BUDGETS))})",
    )  # fmt: skip
    _add_plan(added["plan"])
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
    "a recorded load instead; its columns tell the form: .csv with arrived_at, num_prefill_tokens "
    "and num_decode_tokens; Azure's .csv (TIMESTAMP, ContextTokens, GeneratedTokens); .jsonl or "
    ".csv with timestamp, input_length, output_length and, where prompts share prefixes, "
    "hash_ids (vLLM's timed trace, guidellm's, Mooncake's); guidellm's report, .json"
)


def _add_load(command: argparse.ArgumentParser, has_rate: bool) -> argparse._ArgumentGroup:
    load = command.add_argument_group("load")
    load.add_argument(
        "--workload",
        help="lengths: sharegpt, arxiv, conversation, code, zipf[:PD], fixed:PROMPT,OUTPUT or, "
        "beyond the deployments' --max-model-len, agentic, long-among-short (default conversation)",
    )  # fmt: skip
    load.add_argument("--trace", metavar="FILE", help=TRACE_HELP)
    load.add_argument(
        "--trace-time-unit-s", type=positive, metavar="S",
        help="seconds in a unit of the trace's times (default 1; 0.001 if it is Mooncake's: "
        "hash_ids of 512 tokens, whole times)",
    )  # fmt: skip
    load.add_argument(
        "--trace-hash-tokens", type=whole, metavar="N",
        help="prompt tokens that one of a trace's hash_ids stands for (default: 16 or 512, as "
        "their number tells)",
    )  # fmt: skip
    rate = "requests per second" if has_rate else "requests per second to start the search at"
    load.add_argument("--rate", type=positive, help=f"{rate} (default 1, or a trace's own)")
    if has_rate and command.prog.endswith("compare"):
        load.add_argument(
            "--rates", type=rates, metavar="R,R...", help="several, instead of --rate"
        )
    more = "" if has_rate else "; more where so few would not be steady"
    load.add_argument(
        "--requests", type=whole, help=f"how many (default 1000, or the whole trace{more})"
    )
    load.add_argument(
        "--cv", type=float, help="burstiness: 0 even, 1 Poisson (the default), >1 bursty"
    )
    load.add_argument("--shape", choices=("steady", "ramp", "diurnal"), help="(default steady)")
    load.add_argument("--seed", type=seed, default=0, help="of lengths, times and noise")
    return load


def _add_objectives(group: argparse._ArgumentGroup, each: str) -> None:
    group.add_argument("--tbt-slo-ms", type=positive, help=f"{each} the time between tokens")
    group.add_argument("--tpot-slo-ms", type=positive, help=f"{each} the mean time per token")
    group.add_argument("--ttft-slo-ms", type=positive, help=f"{each} the first token")
    group.add_argument(
        "--goodput", nargs="+", type=objective, metavar="KEY:MS",
        help="what a request has to meet to count for goodput, as in 'vllm bench serve': "
        "ttft:2000 tpot:50 e2el:10000, any of them (default: the objectives above)",
    )  # fmt: skip


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
    _add_kv_cache_dtype(engine)
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
    _add_outputs(engine)


def _add_kv_cache_dtype(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--kv-cache-dtype", choices=("auto", "fp8"), help="auto: 2 bytes a value (the default)"
    )


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="figures as JSON, to a file or here"
    )
    group.add_argument("--csv", metavar="FILE", help="figures as CSV, a row for each run")
    group.add_argument(
        "--bench-json", metavar="DIR",
        help="each run as 'vllm bench serve' saves it, for 'vllm bench sweep plot DIR'",
    )  # fmt: skip


def _add_many(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=whole, default=3, help="runs each (default %(default)s)")
    _add_jobs(command)


def _add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--jobs", type=whole, help="processes at a time (default: one a core)")


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
    _add_objectives(options, "objective for")
    _add_outputs(options)
    _add_jobs(command)
    command.set_defaults(trace=None, noise=0.0, seed=0, seeds=1)


def _add_goal(command: argparse.ArgumentParser, searches: bool = True) -> None:
    goal = command.add_argument_group("goal")
    goal.add_argument(
        "--delay-s", type=positive, default=2.0, help="median scheduling delay (default 2)"
    )
    goal.add_argument(
        "--goodput-share", type=share, metavar="SHARE",
        help="share of requests that has to meet all of --goodput (default 0.99, as 99th "
        "percentiles do; DistServe plans with 0.9)",
    )  # fmt: skip
    if searches:
        goal.add_argument("--precision", type=positive, help="of the rate found (default 0.02)")


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "schedulers", nargs="*", metavar="SCHEDULER",
        help=f"to choose from: {SCHEDULER_HELP} (default: 'sarathi', and 'stock' with each of "
        "several token budgets and limits of running requests)",
    )  # fmt: skip
    _add_goal(command, searches=False)
    fleet = command.add_argument_group("what there is to choose from")
    fleet.add_argument(
        "--model", required=True, metavar="FILE|NAME",
        help=f"a config.json of Hugging Face, its folder, or {MODELS}",
    )  # fmt: skip
    _add_kv_cache_dtype(fleet)
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
