"""The papers' results in virtual time, measured beside published.

Run ``python benchmarks/paper_tables.py``: writes results/paper_tables.md and
.json. Each section keeps what it was run with.
"""

import argparse
import json
from pathlib import Path

from support.papers_experiments import EXPERIMENTS, Figures
from support.papers_text import render
from support.provenance import provenance

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300, help="in a capacity run")
    parser.add_argument("--offline-requests", type=int, default=1000, help="in a pipeline run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", choices=EXPERIMENTS, nargs="+", default=EXPERIMENTS, help="keep others"
    )
    options = parser.parse_args()
    parameters = {
        "pipeline": {"num_requests": options.offline_requests, "num_seeds": options.seeds},
        "pd": {},
        "capacity": {"num_requests": options.requests, "num_seeds": options.seeds},
    }
    kept = RESULTS / "paper_tables.json"
    figures: Figures = json.loads(kept.read_text()) if kept.exists() else {}
    origins = figures.setdefault("origins", {})
    for name in options.only:
        origins[name] = {"provenance": provenance(), "parameters": parameters[name]}
        figures[name] = EXPERIMENTS[name](**parameters[name])
    if set(origins) == set(EXPERIMENTS):
        figures.pop("provenance", None)  # of old files, which kept one for all sections
    kept.write_text(json.dumps(figures, indent=1) + "\n")
    text = render(figures)
    (RESULTS / "paper_tables.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
