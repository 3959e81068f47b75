"""Options that several commands share. Imports nothing heavy, so that ``--help`` is quick."""

import argparse

from vllm_sarathi.cli.values import noise, objective, positive, seed, share, whole

# What GPUs and models there are: listed here too, since ``--help`` imports nothing.
GPUS = "a100, a100-40gb, h100, h200, b200, l4, l40s, a10g, mi300x"
MODELS = "llama-3-8b, llama-3-70b, llama-2-70b, mistral-7b, gpt-3, mixtral-8x7b, deepseek-v3"
ENGINE_HELP = (
    "NAME[:BUDGET][,KEY=VALUE...], e.g. stock:512,max_num_seqs=128 or sarathi:2048,tbt_slo_ms=50. "
    "NAME: 'stock', 'sarathi' or the dotted path of a scheduler class; BUDGET: vLLM's "
    "max_num_batched_tokens (default 2048); KEY: max_num_seqs, async_scheduling, policy, "
    "enable_prefix_caching, label or a setting of 'sarathi'"
)
TRACE_HELP = (
    "a recorded load instead; its columns tell the form: .csv with arrived_at, num_prefill_tokens "
    "and num_decode_tokens; Azure's .csv (TIMESTAMP, ContextTokens, GeneratedTokens); .jsonl or "
    ".csv with timestamp, input_length, output_length and, where prompts share prefixes, "
    "hash_ids (vLLM's timed trace, guidellm's, Mooncake's); guidellm's report, .json"
)


def add_load(command: argparse.ArgumentParser, rate: str, requests: str) -> argparse._ArgumentGroup:
    """What is served; returns the group.

    Args:
        command: gets the options.
        rate: what ``--rate`` means, its default left out.
        requests: the same of ``--requests``.
    """
    load = command.add_argument_group("load")
    load.add_argument(
        "--workload",
        help="lengths: sharegpt, arxiv, conversation, code, zipf[:PD] with PD prompt tokens for "
        "each output token, fixed:PROMPT,OUTPUT, agentic, long-among-short (default conversation; "
        "the last two have requests beyond 32768 tokens)",
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
    load.add_argument(
        "--rate", type=positive, metavar="R", help=f"{rate} (default 1, or a trace's own)"
    )
    load.add_argument(
        "--requests", type=whole, metavar="N",
        help=f"{requests} (default 1000, or the whole trace)",
    )  # fmt: skip
    load.add_argument(
        "--cv", type=float, help="burstiness: 0 even, 1 Poisson (the default), >1 bursty"
    )
    load.add_argument(
        "--shape", choices=("steady", "ramp", "diurnal"),
        help="how the rate goes over time (default steady)",
    )  # fmt: skip
    load.add_argument(
        "--seed", type=seed, default=0, metavar="N",
        help="of lengths, arrivals and noise (default 0)",
    )  # fmt: skip
    return load


def add_objectives(group: argparse._ArgumentGroup, each: str) -> None:
    """What limits latency; ``each`` says what of each figure."""
    for kind, name in (
        ("tbt", "time between two tokens"),
        ("tpot", "mean time per token after the first"),
        ("ttft", "time to the first token"),
    ):
        group.add_argument(
            f"--{kind}-slo-ms", type=positive, metavar="MS", help=f"{each} the {name}"
        )
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
        help=f"instead, with --gpu: a Hugging Face config.json, its folder, or {MODELS}",
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
    add_noise(engine)
    engine.add_argument(
        "--limit-s",
        type=positive,
        metavar="S",
        help="virtual time at which a run ends at the latest",
    )
    add_outputs(engine)


def add_kv_cache_dtype(group: argparse._ArgumentGroup) -> None:
    """The data type of the KV cache."""
    group.add_argument(
        "--kv-cache-dtype", choices=("auto", "fp8"),
        help="of --model: auto, 2 bytes a value (the default), or fp8, 1 byte",
    )  # fmt: skip


def add_noise(group: argparse._ArgumentGroup) -> None:
    """How much steps vary."""
    group.add_argument(
        "--noise", type=noise, default=0.0, metavar="SHARE",
        help="standard deviation of a step's time, as a share of it (default 0)",
    )  # fmt: skip


def add_outputs(group: argparse._ArgumentGroup) -> None:
    """Where results go."""
    add_json(group)
    group.add_argument("--csv", metavar="FILE", help="figures as CSV, a row for each run")
    group.add_argument(
        "--bench-json", metavar="DIR",
        help="each run as 'vllm bench serve' saves it, for 'vllm bench sweep plot DIR'",
    )  # fmt: skip


def add_json(group: argparse._ArgumentGroup) -> None:
    """Figures for programs."""
    group.add_argument(
        "--json", nargs="?", const="-", metavar="FILE",
        help="figures as JSON, to a file, or to stdout in place of the table",
    )  # fmt: skip


def add_many(command: argparse.ArgumentParser) -> None:
    """Several runs."""
    command.add_argument(
        "--seeds", type=whole, default=3, metavar="N", help="runs each (default %(default)s)"
    )
    add_jobs(command)


def add_jobs(group: argparse._ActionsContainer) -> None:
    """How many processes."""
    group.add_argument(
        "--jobs", type=whole, metavar="N", help="processes at a time (default: one for each core)"
    )


def add_goal(command: argparse.ArgumentParser, searches: bool = True) -> None:
    """What has to hold."""
    goal = command.add_argument_group("goal")
    goal.add_argument(
        "--delay-s", type=positive, default=2.0, metavar="S",
        help="limit of the median delay before a request is scheduled (default 2)",
    )  # fmt: skip
    goal.add_argument(
        "--goodput-share", type=share, metavar="SHARE",
        help="share of requests that has to meet all of --goodput (default 0.99, as 99th "
        "percentiles do; DistServe plans with 0.9)",
    )  # fmt: skip
    if searches:
        goal.add_argument(
            "--precision", type=positive, metavar="SHARE",
            help="how far off the rate may be, as a share of it (default 0.02)",
        )  # fmt: skip
