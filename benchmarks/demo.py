"""Serve a real model with stock vLLM and with SARATHI, and compare what a client sees.

Both servers run side by side and get the load alternately, so that whatever else the machine
does affects both.
"""

import argparse
import asyncio
import json
import os
import re
import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from support.http_load import LoadResult, MixedLoad, Stream, ask, run_load
from support.model import DEFAULT_MODEL
from support.provenance import foot, provenance
from support.server import Server, memory_share, serve
from support.timeline import draw

from vllm_sarathi.latency import percentile

RESULTS = Path(__file__).parent / "results"
COMMON = ("--dtype", "float32", "--max-model-len", "4096", "--no-enable-prefix-caching")
SIDES = {"stock": (), "sarathi": ("--scheduler", "sarathi")}
ROUNDS = (("stock", 0), ("sarathi", 0), ("sarathi", 1), ("stock", 1))  # with the load's seed
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
QUESTION = "In one sentence: why is the sky blue?"
console = Console()


def start(stack: ExitStack, model: str, flags: tuple[str, ...]) -> Server:
    """A server that has answered, and compiled what a first long prompt compiles."""
    with console.status(f"starting vllm serve {shlex.join(flags)}"):
        server = stack.enter_context(serve(model, flags))
    with console.status("warming up"):
        answer = asyncio.run(warm_up(server, model))
    console.print(f"[bold]{QUESTION}[/bold]\n{answer.text.strip()}")
    return server


async def warm_up(server: Server, model: str) -> Stream:
    """Send a long prompt, then ask a question."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        await ask(client, model, "warm " * MixedLoad().long_words, 4)
        return await ask(client, model, QUESTION, 60, ignore_eos=False)


def run_with_progress(server: Server, model: str, load: MixedLoad) -> LoadResult:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        total = load.num_streams * load.chats_per_stream + load.num_long
        task = progress.add_task("requests answered", total=total)
        return asyncio.run(run_load(server.url, model, load, lambda _: progress.advance(task)))


def figures(*results: LoadResult) -> dict[str, float | None]:
    """The table's rows, over all results of a server."""
    times = [stream.times for result in results for stream in result.streams]
    ttfts = [1e3 * t.ttft_s for t in times if t.ttft_s is not None]
    tbts = [1e3 * gap for t in times for gap in t.tbts_s]
    return {
        "TTFT p50, ms": percentile(ttfts, 50),
        "TTFT p99, ms": percentile(ttfts, 99),
        "TBT p50, ms": percentile(tbts, 50),
        "TBT p99, ms": percentile(tbts, 99),
        "TBT max, ms": percentile(tbts, 100),
        "output tokens/s": sum(result.num_tokens for result in results)
        / sum(result.ended_s - result.began_s for result in results),
    }


def comparison(found: dict[str, dict[str, float | None]]) -> Table:
    table = Table(title="The same load, stock vLLM and SARATHI")
    for name, justify in (("", "left"), *((name, "right") for name in found), ("ratio", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    stock, ours = found.values()
    for name in stock:
        before, after = stock[name] or float("nan"), ours[name] or float("nan")
        table.add_row(name, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}")
    return table


def scraped(samples: list[str]) -> Table:
    """What was counted; the settings, buckets and what stayed 0 would hide the rest."""
    table = Table(title="Scraped from /metrics, without what is 0")
    table.add_column("sample", overflow="fold")
    table.add_column("value", justify="right")
    for line in samples:
        name, value = without_common_labels(line).rsplit(" ", 1)
        if "_bucket{" not in name and "_info{" not in name and float(value):
            table.add_row(name, f"{float(value):.6g}")
    return table


def without_common_labels(sample: str) -> str:
    sample = re.sub(r'(model_name|engine)="[^"]*",?', "", sample)
    return sample.replace(",}", "}").replace("{}", "")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--num-long", type=int, default=MixedLoad().num_long, metavar="N")
    parser.add_argument("--stock-args", type=shlex.split, default=[], metavar="FLAGS")
    parser.add_argument("--sarathi-args", type=shlex.split, default=[], metavar="FLAGS")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    os.environ.update(ENVIRONMENT)
    load = MixedLoad(num_long=arguments.num_long)
    extra = {"stock": arguments.stock_args, "sarathi": arguments.sarathi_args}
    results: dict[str, list[LoadResult]] = {name: [] for name in SIDES}
    with ExitStack() as stack:
        servers = {}
        for name, flags in SIDES.items():
            console.rule(name)
            flags = (*COMMON, *memory_share(len(SIDES)), *flags, *extra[name])
            servers[name] = start(stack, arguments.model, flags)
        for name, seed in ROUNDS:
            console.rule(f"{name}, load {seed}")
            asked = replace(load, seed=seed)
            results[name].append(run_with_progress(servers[name], arguments.model, asked))
        metrics = servers["sarathi"].scrape("vllm_sarathi:")
    found = {name: figures(*of_server) for name, of_server in results.items()}
    console.print(comparison(found), scraped(metrics))
    arguments.output.mkdir(parents=True, exist_ok=True)
    raw = provenance(model=Path(arguments.model).name, environment=ENVIRONMENT) | {
        name: {
            "command": shlex.join(servers[name].command),
            "figures": found[name],
            "results": [result.as_json() for result in of_server],
        }
        for name, of_server in results.items()
    }
    raw["metrics"] = [without_common_labels(sample) for sample in metrics]
    (arguments.output / "demo.json").write_text(json.dumps(raw, indent=1))
    first = {name: of_server[0].as_json() for name, of_server in results.items()}
    draw(first, arguments.output / "demo.png", foot(raw))
    console.print(f"Raw times and the picture of them are in {arguments.output}.")


if __name__ == "__main__":
    main()
