"""Draw the pictures of ``results/`` again, without measuring anything anew.

Those of the demo, of goodput, of rivals and of rates are made of their JSON files. That of
pipelines and those of the simulator, with the README's first comparison, are simulated.
"""

import argparse
import json
from pathlib import Path

from pipeline import draw_pictured
from support import goodput_plot, timeline
from support.provenance import foot

from vllm_sarathi.simulator import (
    LENGTHS,
    EngineSettings,
    Objectives,
    Synthetic,
    deployment,
    simulate,
)
from vllm_sarathi.simulator.results.plots import draw_gaps, draw_run
from vllm_sarathi.simulator.results.rate_plots import draw_rates

RESULTS = Path(__file__).parent / "results"


def demo() -> None:
    found = json.loads((RESULTS / "demo.json").read_text())
    first = {name: found[name]["results"][0] for name in ("stock", "sarathi")}
    timeline.draw(first, RESULTS / "demo.png", foot(found))


def goodput() -> None:
    found = json.loads((RESULTS / "goodput.json").read_text())
    goodput_plot.draw(found["runs"], RESULTS / "goodput.png", foot(found["provenance"]))


def rivals() -> None:
    found = json.loads((RESULTS / "rivals.json").read_text())
    path = RESULTS / "rivals.png"
    goodput_plot.draw(found["runs"], path, foot(found["provenance"]), "compare", num_columns=4)


def rates() -> None:
    runs = json.loads((RESULTS / "rates.json").read_text())["results"]
    draw_rates(runs, RESULTS / "simulate" / "rates.png", Objectives(ttft_s=2.0, tpot_s=0.05))


def pipeline() -> None:
    draw_pictured(RESULTS / "pipeline.png")


def simulator() -> None:
    objective_s, folder = 0.05, RESULTS / "simulate"
    ours = EngineSettings("sarathi", {"tbt_slo_ms": 1e3 * objective_s}, 8192, label="sarathi:8192")
    statics = [EngineSettings(max_num_batched_tokens=budget) for budget in (512, 2048)]
    load = Synthetic(LENGTHS["sharegpt"]).at(9.0, seed=0)
    reports = [
        simulate(engine, deployment("h100-llama-3-8b"), load, keep_steps=True)
        for engine in (*statics, ours)
    ]
    draw_run(reports[-1], folder, Objectives(tbt_s=objective_s))
    draw_gaps(reports, folder / "gaps.png", objective_s)


PICTURES = {
    "demo": demo,
    "goodput": goodput,
    "rivals": rivals,
    "rates": rates,
    "pipeline": pipeline,
    "simulator": simulator,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", choices=PICTURES, default=list(PICTURES))
    for name in parser.parse_args().pictures:
        PICTURES[name]()


if __name__ == "__main__":
    main()
