"""Serve a real model with stock vLLM and with SARATHI, and compare what a client sees."""

import argparse
import asyncio
import json
import os
import re
import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from http_load import LoadResult, MixedLoad, Stream, ask, run_load
from model import DEFAULT_MODEL
from provenance import provenance
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from server import Server, serve
from timeline import draw

from vllm_sarathi.metrics.latency import percentile

RESULTS = Path(__file__).parent / "results"
COMMON = ("--dtype", "float32", "--max-model-len", "4096", "--no-enable-prefix-caching")
SIDES = {"stock": (), "sarathi": ("--scheduler", "sarathi")}
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
QUESTION = "In one sentence: why is the sky blue?"
console = Console()


@dataclass(frozen=True, slots=True)
class Side:
    """One server's result.

    Attributes:
        command: what served.
        result: what the load saw.
        answer: the model's answer to a question.
        metrics: our samples on its /metrics.
    """

    command: tuple[str, ...]
    result: LoadResult
    answer: str
    metrics: list[str]


def measure(model: str, flags: tuple[str, ...], load: MixedLoad) -> Side:
    with ExitStack() as stack:
        with console.status(f"starting vllm serve {shlex.join(flags)}"):
            server = stack.enter_context(serve(model, flags))
        with console.status("warming up"):
            answer = asyncio.run(warm_up(server, model, load))
        result = run_with_progress(server, model, load)
        return Side(server.command, result, answer.text.strip(), server.scrape("vllm_sarathi:"))


async def warm_up(server: Server, model: str, load: MixedLoad) -> Stream:
    """Compile what a first long prompt compiles, and ask a question."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        await ask(client, model, "warm " * load.long_words, 4)
        return await ask(client, model, QUESTION, 60, ignore_eos=False)


def run_with_progress(server: Server, model: str, load: MixedLoad) -> LoadResult:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        total = load.num_streams * load.chats_per_stream + load.num_long
        task = progress.add_task("requests answered", total=total)
        return asyncio.run(run_load(server.url, model, load, lambda _: progress.advance(task)))


def figures(result: LoadResult) -> dict[str, float | None]:
    """The table's rows."""
    times = [stream.times for stream in result.streams]
    ttfts = [1e3 * t.ttft_s for t in times if t.ttft_s is not None]
    tbts = [1e3 * gap for t in times for gap in t.tbts_s]
    return {
        "TTFT p50, ms": percentile(ttfts, 50),
        "TTFT p99, ms": percentile(ttfts, 99),
        "TBT p50, ms": percentile(tbts, 50),
        "TBT p99, ms": percentile(tbts, 99),
        "TBT max, ms": percentile(tbts, 100),
        "output tokens/s": result.num_tokens / (result.ended_s - result.began_s),
    }


def comparison(sides: dict[str, Side]) -> Table:
    table = Table(title="The same load, stock vLLM and SARATHI")
    for name, justify in (("", "left"), *((name, "right") for name in sides), ("ratio", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    stock, ours = (figures(side.result) for side in sides.values())
    for name in stock:
        before, after = stock[name] or float("nan"), ours[name] or float("nan")
        table.add_row(name, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}")
    return table


def scraped(samples: list[str]) -> Table:
    table = Table(title="Scraped from /metrics")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for sample in samples:
        name, value = without_common_labels(sample).rsplit(" ", 1)
        if "_bucket{" not in name and "_created{" not in name:
            table.add_row(name, value)
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
    sides = {}
    for name, flags in SIDES.items():
        console.rule(name)
        sides[name] = measure(arguments.model, (*COMMON, *flags, *extra[name]), load)
        console.print(f"[bold]{QUESTION}[/bold]\n{sides[name].answer}")
    console.print(comparison(sides), scraped(sides["sarathi"].metrics))
    arguments.output.mkdir(parents=True, exist_ok=True)
    raw = provenance(model=Path(arguments.model).name, environment=ENVIRONMENT) | {
        name: {
            "command": shlex.join(side.command),
            "figures": figures(side.result),
            **side.result.as_json(),
            "metrics": [without_common_labels(sample) for sample in side.metrics],
        }
        for name, side in sides.items()
    }
    (arguments.output / "demo.json").write_text(json.dumps(raw, indent=1))
    draw({name: side.result for name, side in sides.items()}, arguments.output / "demo.png")
    console.print(f"Raw times and the picture of them are in {arguments.output}.")


if __name__ == "__main__":
    main()
