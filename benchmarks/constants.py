"""What half and twice each tuned constant change, in virtual time.

Three loads: goodput in 1.5 times the load that stock vLLM holds, goodput just below capacity,
and the share of gaps in time under ``tbt_slo_ms`` alone with the throughput it costs.
Figures are ratios to the value in the code, of the same requests and noise.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from support.goodput_cases import A100, H100
from support.goodput_runs import Bench, Run, markdown, mean, ours
from support.runs import Figures, Runs, add_arguments

from vllm_sarathi.simulator import LENGTHS, Synthetic
from vllm_sarathi.simulator.results.comparison import default_num_jobs

RESULTS = Path(__file__).parent / "results"

CONSTANTS = (
    "policy.admission.RESERVED_BLOCKS",
    "policy.admission.MAX_RESERVED_SHARE",
    "policy.answers.E2E_LENGTH",
    "policy.answers._MEMORY_ANSWERS",
    "policy.answers._SURE_SHARE",
    "policy.order.FULL_OVERLOAD",
    "policy.order.IN_OVERLOAD",
    "policy.order._REQUEST_WEIGHT",
    "policy.step_time._RIDGE_TOKENS",
    "policy.step_time._MEMORY_STEPS",
    "policy.step_time._PRIOR_WEIGHT",
    "policy.step_time._UNSURE_SHARE",
    "policy.step_time._CORRECTION_RATE",
    "policy.step_time._OUTLIER_RATIO",
    "policy.step_time._WARM_STEPS",
    "policy.step_time._STEPS_PER_FIT",
    "policy.token_budget.WANTED_FACTOR",
    "policy.token_budget._LEVEL_EXCESS",
    "policy.token_budget._PAUSE_SAVING",
    "policy.token_budget._UNTRIED_DISCOUNT",
    "policy.token_budget._LEAST_GAP",
    "policy.token_budget._FIRST_BATCH",
    "scheduler.promises.LEAST_PACE",
    "scheduler.promises._STEP_WEIGHT",
)
FACTORS = (0.5, 2.0)


@contextmanager
def scaled(path: str | None, factor: float) -> Iterator[None]:
    """Multiply a constant of the package inside the block; None leaves all as they are."""
    if path is None:
        yield
        return
    module_name, name = f"vllm_sarathi.{path}".rsplit(".", 1)
    module = import_module(module_name)
    value = getattr(module, name)
    changed = value * factor
    setattr(module, name, round(changed) if isinstance(value, int) else changed)
    try:
        yield
    finally:
        setattr(module, name, value)


@dataclass(frozen=True, slots=True)
class Scaled:
    """A run under a changed constant.

    Args:
        under: the run.
        constant: path of the constant inside the package; None for none.
        factor: what it is multiplied by.
    """

    under: Run
    constant: str | None = None
    factor: float = 1.0

    @property
    def key(self) -> str:
        """What tells its result from others."""
        return f"{self.constant} x {self.factor:g}: {self.under.key}"

    def run(self) -> Figures:
        """Run it."""
        with scaled(self.constant, self.factor):
            return self.under.run()


def loads() -> dict[str, tuple[Run, str]]:
    """Runs by what tables call them, each with the figure that is compared."""
    overload = A100.run("constants", ours("ours", **A100.settings), 5.13, "overload")
    near = H100.run("constants", ours("ours", **H100.settings), 20.0, "near capacity")
    strict = replace(
        near,
        load="gaps",
        engine=ours("ours", tbt_slo_ms=50.0),
        traffic=Synthetic(LENGTHS["sharegpt"], 400),
        rate=8.0,
    )
    return {
        "goodput, A100, 1.5x": (overload, "goodput"),
        "goodput, H100, 0.9x": (near, "goodput"),
        "P99 TBT, H100": (strict, "tbt_p99_ms"),
        "P90 TTFT, H100": (strict, "ttft_p90_s"),
    }


def table(bench: Bench) -> str:
    """Ratios to the value in the code, for each constant, factor and figure."""
    chosen = loads()
    known = {name: over_seeds(bench, Scaled(run), figure) for name, (run, figure) in chosen.items()}
    rows = []
    for constant in CONSTANTS:
        for factor in FACTORS:
            ratios = [
                over_seeds(bench, Scaled(run, constant, factor), figure) / known[name]
                for name, (run, figure) in chosen.items()
            ]
            rows.append([f"`{constant}`", f"x {factor:g}", *(f"{ratio:.3f}" for ratio in ratios)])
    return markdown(["constant", "changed", *chosen], rows)


def over_seeds(bench: Bench, task: Scaled, figure: str) -> float:
    """Mean of a figure over the seeds."""
    seeds = range(bench.num_seeds)
    tasks = [replace(task, under=replace(task.under, seed=seed)) for seed in seeds]
    return mean(bench.figures(tasks), figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--jobs", type=int, default=default_num_jobs(), metavar="N")
    add_arguments(parser, RESULTS / "constants.json")
    arguments = parser.parse_args()
    held = Runs(arguments.output, (), resume=True).figures
    runs = Runs(arguments.output, list(held), arguments.resume)
    runs.write_table(table(Bench(runs, arguments.jobs, arguments.seeds)))


if __name__ == "__main__":
    main()
