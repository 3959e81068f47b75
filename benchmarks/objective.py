"""An objective on a real server: ours with nothing tuned, beside stock vLLM tuned by hand.

One server with stock vLLM's own default, one with each static token budget, one with our
scheduler and the objective, and one that has an objective for the first token as well run
side by side and get the same mixed loads over HTTP one after the other, so that whatever else
the machine does affects them all.
"""

import argparse
import json
import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from demo import COMMON, ENVIRONMENT, RESULTS, console, figures, run_with_progress, start
from support.http_load import LoadResult, MixedLoad
from support.model import DEFAULT_MODEL
from support.provenance import provenance
from support.server import memory_share

BUDGETS = (64, 128, 256, 512, 1024)
STOCK, OURS, BY_DEADLINE = "stock", "sarathi", "sarathi by deadline"
SPEED, LATE = "output tokens/s", "late gaps"


def sides(budgets: list[int], tbt_ms: float, ttft_ms: float) -> dict[str, tuple[str, ...]]:
    """Flags of each server."""
    static = {f"{STOCK}, {n}": ("--max-num-batched-tokens", str(n)) for n in budgets}
    ours = ("--scheduler", "sarathi", "--sarathi-tbt-slo-ms", f"{tbt_ms:g}")
    by_deadline = (*ours, "--sarathi-ttft-slo-ms", f"{ttft_ms:g}")
    return {STOCK: (), **static, OURS: ours, BY_DEADLINE: by_deadline}


def late_share(result: LoadResult, tbt_ms: float) -> float:
    """Share of gaps between tokens that were longer than the objective."""
    gaps = [gap for stream in result.streams for gap in stream.times.tbts_s]
    return sum(1e3 * gap > tbt_ms for gap in gaps) / len(gaps)


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: medians over the seeds; tokens per second to stock's best with the same seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        found.setdefault(run["side"], []).append(run["figures"])
    medians = {
        name: {figure: median(run[figure] for run in of_server) for figure in of_server[0]}
        for name, of_server in found.items()
    }
    stock = [name for name in found if name not in (OURS, BY_DEADLINE)]
    best = max(stock, key=lambda name: medians[name][SPEED])
    head = [*runs[0]["figures"], "tokens/s to best stock"]
    rows = ["| server | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, of_server in found.items():
        pairs = zip(of_server, found[best], strict=True)
        ratios = [run[SPEED] / other[SPEED] for run, other in pairs]
        cells = [
            f"{value:.1%}" if figure == LATE else f"{value:.1f}"
            for figure, value in medians[name].items()
        ]
        cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--tbt-slo-ms", type=float, default=250.0, metavar="MS")
    parser.add_argument("--ttft-slo-ms", type=float, default=1000.0, metavar="MS")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS, metavar="N")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS / "objective.json", metavar="FILE")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    asked = sides(arguments.budgets, arguments.tbt_slo_ms, arguments.ttft_slo_ms)
    raw = provenance(model=Path(arguments.model).name, environment=ENVIRONMENT)
    runs: list[dict[str, Any]] = []
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = {
            name: start(stack, arguments.model, (*COMMON, *memory_share(len(asked)), *flags))
            for name, flags in asked.items()
        }
        raw["commands"] = {name: shlex.join(server.command) for name, server in servers.items()}
        for seed in range(arguments.seeds):
            for name, server in servers.items():
                console.print(f"seed {seed}, {name}")
                result = run_with_progress(server, arguments.model, MixedLoad(seed=seed))
                late = {LATE: late_share(result, arguments.tbt_slo_ms)}
                runs.append({"side": name, "figures": figures(result) | late, **result.as_json()})
                arguments.output.write_text(json.dumps(raw | {"runs": runs}))
    arguments.output.with_suffix(".md").write_text(table(runs) + "\n")
    console.print(table(runs))


if __name__ == "__main__":
    main()
