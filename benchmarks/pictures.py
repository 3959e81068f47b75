"""Draw the pictures of ``results/`` again, without measuring anything anew.

That of the demo and of goodput are made of their JSON files; that of pipelines is simulated.
"""

import argparse
import json
from pathlib import Path

from pipeline import draw_pictured
from support import goodput_plot, timeline

RESULTS = Path(__file__).parent / "results"


def demo() -> None:
    found = json.loads((RESULTS / "demo.json").read_text())
    first = {name: found[name]["results"][0] for name in ("stock", "sarathi")}
    timeline.draw(first, RESULTS / "demo.png")


def goodput() -> None:
    runs = json.loads((RESULTS / "goodput.json").read_text())["runs"]
    goodput_plot.draw(runs, RESULTS / "goodput.png")


def pipeline() -> None:
    draw_pictured(RESULTS / "pipeline.png")


PICTURES = {"demo": demo, "goodput": goodput, "pipeline": pipeline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", choices=PICTURES, default=list(PICTURES))
    for name in parser.parse_args().pictures:
        PICTURES[name]()


if __name__ == "__main__":
    main()
