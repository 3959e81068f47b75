"""An objective on a real server: ours with nothing tuned, beside stock vLLM tuned by hand.

Serves a model with stock vLLM as it comes, with each static token budget, and with our
scheduler and the objective; all answer the same mixed load over HTTP.
"""

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any

from demo import COMMON, ENVIRONMENT, RESULTS, figures, measure
from http_load import LoadResult, MixedLoad
from provenance import provenance

BUDGETS = (64, 128, 256, 512)
# Chats outlast the long prompts, so that tokens per second are what the server can do.
LOAD = MixedLoad(chats_per_stream=10, num_long=8, long_every_s=6.0)


def sides(budgets: list[int], tbt_ms: float) -> dict[str, tuple[str, ...]]:
    """Flags of each server."""
    static = {f"stock, {n}": ("--max-num-batched-tokens", str(n)) for n in budgets}
    ours = ("--scheduler", "sarathi", "--sarathi-tbt-slo-ms", f"{tbt_ms:g}")
    return {"stock": (), **static, "sarathi": ours}


def late_share(result: LoadResult, tbt_ms: float) -> float:
    """Share of gaps between tokens that were longer than the objective."""
    gaps = [gap for stream in result.streams for gap in stream.times.tbts_s]
    return sum(1e3 * gap > tbt_ms for gap in gaps) / len(gaps)


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row for each server."""
    names = list(next(iter(found.values()))["figures"])
    rows = ["| server | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, side in found.items():
        cells = [f"{side['figures'][key]:.3g}" for key in names]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(cache / "vllm-sarathi" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--tbt-slo-ms", type=float, default=250.0, metavar="MS")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS / "objective.json", metavar="FILE")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    raw = provenance(model=Path(arguments.model).name, environment=ENVIRONMENT) | {"sides": {}}
    for name, flags in sides(arguments.budgets, arguments.tbt_slo_ms).items():
        side = measure(arguments.model, (*COMMON, *flags), LOAD)
        late = {"late gaps": late_share(side.result, arguments.tbt_slo_ms)}
        raw["sides"][name] = {
            "command": shlex.join(side.command),
            "figures": figures(side.result) | late,
            **side.result.as_json(),
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(raw, indent=1))
    arguments.output.with_suffix(".md").write_text(table(raw["sides"]) + "\n")
    print(table(raw["sides"]))


if __name__ == "__main__":
    main()
