"""Options that several commands share. Imports nothing heavy, so that ``--help`` is quick."""

import argparse

from vllm_sarathi.cli.values import noise, objective, positive, rates, seed, share, whole

# What GPUs and models there are: listed here too, since ``--help`` imports nothing.
GPUS = "a100, a100-40gb, h100, h200, b200, l4, l40s, a10g, mi300x"
MODELS = "llama-3-8b, llama-3-70b, llama-2-70b, mistral-7b, gpt-3, mixtral-8x7b, deepseek-v3"
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


def add_load(command: argparse.ArgumentParser, has_rate: bool) -> argparse._ArgumentGroup:
    """What is served; returns the group."""
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


def add_objectives(group: argparse._ArgumentGroup, each: str) -> None:
    """What limits latency."""
    group.add_argument("--tbt-slo-ms", type=positive, help=f"{each} the time between tokens")
    group.add_argument("--tpot-slo-ms", type=positive, help=f"{each} the mean time per token")
    group.add_argument("--ttft-slo-ms", type=positive, help=f"{each} the first token")
    group.add_argument(
        "--goodput", nargs="+", type=objective, metavar="KEY:MS",
        help="what a request has to meet to count for goodput, as in 'vllm bench serve': "
        "ttft:2000 tpot:50 e2el:10000, any of them (default: the objectives above)",
    )  # fmt: skip


def add_engine(command: argparse.ArgumentParser) -> None:
    """The machine, and how the engine is set up."""
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
    add_kv_cache_dtype(engine)
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
    add_outputs(engine)


def add_kv_cache_dtype(group: argparse._ArgumentGroup) -> None:
    """The data type of the KV cache."""
    group.add_argument(
        "--kv-cache-dtype", choices=("auto", "fp8"), help="auto: 2 bytes a value (the default)"
    )


def add_outputs(group: argparse._ArgumentGroup) -> None:
    """Where results go."""
    group.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="figures as JSON, to a file or here"
    )
    group.add_argument("--csv", metavar="FILE", help="figures as CSV, a row for each run")
    group.add_argument(
        "--bench-json", metavar="DIR",
        help="each run as 'vllm bench serve' saves it, for 'vllm bench sweep plot DIR'",
    )  # fmt: skip


def add_many(command: argparse.ArgumentParser) -> None:
    """Several runs."""
    command.add_argument("--seeds", type=whole, default=3, help="runs each (default %(default)s)")
    add_jobs(command)


def add_jobs(command: argparse.ArgumentParser) -> None:
    """How many processes."""
    command.add_argument("--jobs", type=whole, help="processes at a time (default: one a core)")


def add_goal(command: argparse.ArgumentParser, searches: bool = True) -> None:
    """What has to hold."""
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
