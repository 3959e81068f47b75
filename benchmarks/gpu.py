"""All that a GPU can say of vllm-sarathi: ours beside stock vLLM, in parts that can be resumed.

``python benchmarks/gpu.py`` starts one server after the other on this machine's GPU, with a
model of Llama-3-8B's shape without weights, or ``--model`` any. Each load becomes a result of its
own in one JSON file, as soon as it is done; the next call goes on behind it, and tries again what
failed. At the end there are a table and a deployment file for ``vllm-sarathi capacity``.

Without a GPU, or with ``--smoke``, everything is in miniature: that only proves that it works.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from support.gpu import (
    cliffs,
    cost,
    gaps,
    goodput,
    greedy,
    model_error,
    prediction,
    rate,
    unchanged,
)
from support.gpu.record import Record, gist
from support.gpu.session import run
from support.gpu.setup import FULL, NO_GPU, Setup, setup
from support.provenance import provenance

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, tuple[ModuleType, str]] = {
    of.PART: (of, title)
    for of, title in (
        (rate, "What stock vLLM serves of a burst"),
        (model_error, "Step times: predicted against measured"),
        (cliffs, "Cliffs: step time against tokens in a batch"),
        (gaps, "Gaps between tokens within objectives"),
        (goodput, "Goodput and capacity"),
        (prediction, "The simulator beside the server"),
        (cost, "What the scheduler costs"),
        (unchanged, "preset: observe beside stock vLLM"),
        (greedy, "Greedy tokens"),
    )
}
NEEDS = {
    model_error.PART: (rate.PART,),
    gaps.PART: (rate.PART,),
    goodput.PART: (rate.PART,),
    prediction.PART: (rate.PART, model_error.PART, goodput.PART),
}
ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # prompts of a trace hang on it
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1"}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="a folder or a name; instead of Llama-3-8B's shape without weights")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
        help=f"of {', '.join(PARTS)}; with those that they need")  # fmt: skip
    add("--seeds", type=int, metavar="N", help="loads of each kind (3)")
    add("--settings", nargs="+", metavar="BUDGET/MAX_NUM_SEQS", help="of stock vLLM")
    add("--smoke", action="store_true", help="in miniature")
    add("--output", type=Path, metavar="FILE", help="the JSON file (results/gpu.json)")
    return parser.parse_args(words)


def chosen(parts: Sequence[str]) -> list[str]:
    """Parts with those that they need, in order."""
    needed = {other for part in parts for other in (part, *NEEDS.get(part, ()))}
    return [part for part in PARTS if part in needed]


def page(of: Setup, record: Record) -> str:
    """All tables as Markdown, with what they are of."""
    sections = [f"# vllm-sarathi on a GPU\n\n{of.name}, {of.notice}."]
    for part, (module, title) in PARTS.items():
        if not any(record.of(part)):
            continue
        try:
            text = module.tables(of, record)
        except (KeyError, ValueError) as error:
            text = f"Not complete: {error}"
        sections.append(f"## {title}\n\n{of.notice}\n\n{text}")
    if record.failures:
        failed = [f"- {key}: {gist(error)}" for key, error in record.failures.items()]
        sections.append("## Failed\n\n" + "\n".join(failed))
    return "\n\n".join(sections) + "\n"


def write(of: Setup, record: Record) -> None:
    """The table, and the deployment where there is one."""
    path = record.path.with_suffix(".md")
    path.write_text(page(of, record))
    print(path.read_text())
    print(f"Please send {record.path.name} and {path.name}, in {path.parent}.")
    if model_error.KEY in record:
        deployment = path.with_name(f"{path.stem}_deployment.json")
        costs = record.get(model_error.KEY)["deployment"]
        deployment.write_text(json.dumps(costs, indent=1) + "\n")
        print(f"The deployment for `vllm-sarathi capacity` is {deployment.name}.")


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # the server ends, too
    os.environ.update(ENVIRONMENT)
    of = setup(arguments.model, arguments.smoke, arguments.seeds, tuple(arguments.settings or ()))
    if of.gpu is None:
        print(NO_GPU)
        os.environ.update(ON_CPU)
    output = arguments.output or RESULTS / ("gpu.json" if of.sizes is FULL else "gpu_smoke.json")
    record = Record(output, of.as_json(), provenance(environment=ENVIRONMENT))
    try:
        for part in chosen(arguments.parts):
            record.retry(part)
            try:
                for work in PARTS[part][0].sessions(of, record):
                    run(work, of, record)
            except ValueError as error:  # what it needs has failed
                record.fail(part, error)
    finally:
        write(of, record)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
