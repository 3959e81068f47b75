"""Files of results beside the table."""

import argparse
from pathlib import Path

from vllm_sarathi.cli.tasks import BENCH
from vllm_sarathi.simulator.results.bench_json import write_results
from vllm_sarathi.simulator.results.notes import ByEngine
from vllm_sarathi.simulator.results.rows import write_rows


def write_files(options: argparse.Namespace, found: ByEngine) -> None:
    """Write the files that are asked for; takes what ``vllm bench serve`` says out of the runs."""
    runs = [run for runs in found.values() for run in runs if run is not None]
    results = [run.pop(BENCH) for run in runs if BENCH in run]
    if options.csv:
        write_rows(found, Path(options.csv))
    if options.bench_json:
        write_results(results, Path(options.bench_json))
