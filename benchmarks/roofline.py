"""How far the roofline is off the layers that Vidur measured.

Needs Vidur's profiles: ``git clone https://github.com/microsoft/vidur``, and that folder as the
argument. The A40 had no part in choosing the roofline's constants.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from support.provenance import provenance

from vllm_sarathi.simulator.machine.gpus import GPUS, PCIE_4, PCIE_REACHED, from_datasheet
from vllm_sarathi.simulator.machine.layers import Attention, Layer, Mlp
from vllm_sarathi.simulator.machine.roofline import layer_s
from vllm_sarathi.simulator.results.tables import table

RESULTS = Path(__file__).parent / "results"
# "NVIDIA A40" datasheet.
A40 = from_datasheet("a40", 48e9, 696e9, 149.7e12, None, PCIE_REACHED * PCIE_4)
MEASURED = {gpu.name: gpu for gpu in (GPUS["a100"], GPUS["h100"], A40)}
# One layer, without attention over the context; two residual additions.
PARTS = (
    *("attn_pre_proj", "attn_rope", "attn_post_proj", "mlp_up_proj", "mlp_act", "mlp_down_proj"),
    *("input_layernorm", "post_attention_layernorm", "add", "add"),
)
TEXT = """# The roofline beside measured layers

Written by `python benchmarks/roofline.py VIDUR`; figures as JSON in `roofline.json`. Each figure
is predicted over measured time, less 1, of a layer without attention over the context: medians of
Vidur's profiles (github.com/microsoft/vidur, commit 7d47513) of 1 to 16384 tokens, split over 1,
2, 4 and 8 GPUs. The constants were chosen on the A100 and H100, split over 1 and 4; the A40 had no
part in it. Experts, latent attention and quantized weights have no such profiles.

{gpus}

{models}
"""


class Error(NamedTuple):
    """One prediction."""

    gpu: str
    model: str
    tensor_parallel: int
    num_tokens: int
    error: float


def errors(folder: Path) -> Iterator[Error]:
    """Every layer that was measured, whatever its size and split."""
    for gpu in MEASURED.values():
        profiles = folder / "data/profiling/compute" / gpu.name
        for file in sorted(profiles.rglob("mlp.csv")):
            for row in csv.DictReader(file.open()):
                times = [row.get(f"time_stats.{part}.median") for part in PARTS]
                num_tokens, split = int(row["num_tokens"]), int(row["num_tensor_parallel_workers"])
                if not all(times) or not num_tokens:  # phi-2 has no second norm
                    continue
                measured_s = sum(float(time or 0) for time in times) * 1e-3
                hidden = int(row["n_embd"])
                predicted_s = layer_s(gpu, layer_of(row), hidden, split, num_tokens)
                yield Error(
                    gpu.name, file.parent.name, split, num_tokens, predicted_s / measured_s - 1
                )


def layer_of(row: dict[str, str]) -> Layer:
    heads = int(row["n_head"])
    return Layer(
        Attention(heads, int(row["n_kv_head"]), int(row["n_embd"]) // heads),
        Mlp(int(row["n_expanded_embd"]), row["use_gated_mlp"] == "True"),
    )


def summary(found: list[Error]) -> dict[str, float]:
    sizes = [abs(error.error) for error in found]
    worst = max(found, key=lambda error: abs(error.error))
    return {
        "layers": len(found),
        "median": median(sizes),
        "p90": quantiles(sizes, n=10)[-1],
        "worst": abs(worst.error),
        "bias": median(error.error for error in found),
        "worst_split": worst.tensor_parallel,
        "worst_tokens": worst.num_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vidur", type=Path, help="a clone of github.com/microsoft/vidur")
    folder = parser.parse_args().vidur
    found = list(errors(folder))
    by_gpu = {name: summary([e for e in found if e.gpu == name]) for name in MEASURED}
    keys = sorted({(error.gpu, error.model) for error in found})
    by_model = {key: summary([e for e in found if (e.gpu, e.model) == key]) for key in keys}
    figures = {"gpus": by_gpu, "models": {", ".join(key): of for key, of in by_model.items()}}
    raw = {"provenance": provenance(), **figures}
    (RESULTS / "roofline.json").write_text(json.dumps(raw, indent=1) + "\n")
    text = TEXT.format(
        gpus=_table(("GPU",), {(name,): of for name, of in by_gpu.items()}),
        models=_table(("GPU", "model"), by_model),
    )
    (RESULTS / "roofline.md").write_text(text)
    print(text)


def _table(names: Sequence[str], rows: Mapping[Any, dict[str, float]]) -> str:
    header = (*names, "layers", "median error", "90 %", "worst", "bias", "worst at")
    return table(
        header,
        [
            (
                *key,
                of["layers"],
                *(f"{of[name]:.1%}" for name in ("median", "p90", "worst")),
                f"{of['bias']:+.1%}",
                f"{of['worst_tokens']} tokens, split over {of['worst_split']}",
            )
            for key, of in rows.items()
        ],
    )


if __name__ == "__main__":
    main()
