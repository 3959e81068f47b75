import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator import (
    Arrivals,
    Deployment,
    EngineSettings,
    Fixed,
    QosClass,
    Report,
    Synthetic,
    simulate,
)
from vllm_sarathi.simulator.results.bench_json import bench_result, write_results

ASKED = Objectives(ttft_s=0.02, tpot_s=0.02)
TRAFFIC = Synthetic(Fixed(100, 5), 40, Arrivals(cv=2.0), classes=((QosClass(objectives=ASKED), 1),))


@pytest.fixture
def report(machine: Callable[..., Deployment]) -> Report:
    return simulate(EngineSettings(), machine(), TRAFFIC.at(20.0, 0))


def test_figures_are_what_vllms_client_makes_of_the_same_requests(
    report: Report, machine: Callable[..., Deployment]
) -> None:
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
    from vllm.benchmarks.serve import calculate_metrics

    rows, arrival_s = report.per_request, report.workload.arrival_s
    sent = [
        RequestFuncOutput(
            success=True,
            latency=rows.e2e_s[i],
            ttft=rows.ttft_s[i],
            itl=[rows.tpot_s[i]] * 4,
            prompt_len=100,
            output_tokens=5,
            start_time=arrival_s[i],
        )
        for i in range(40)
    ]
    told, _ = calculate_metrics(
        [], sent, report.duration_s, None, [50, 90, 99], {"ttft": 20.0, "tpot": 20.0}
    )
    ours = bench_result(report, machine(), TRAFFIC, 20.0, 0)
    assert ours["burstiness"] == 0.25
    assert 0 < ours["request_goodput"] < ours["request_throughput"]
    theirs = {
        "completed": told.completed,
        "failed": told.failed,
        "total_input_tokens": told.total_input,
        "total_output_tokens": told.total_output,
    }
    names = [f"{kind}_{name}_ms" for kind in ("mean", "median", "std") for name in ("ttft", "tpot")]
    names += ["request_throughput", "request_goodput", "output_throughput"]
    names += ["total_token_throughput", "max_concurrent_requests", "mean_e2el_ms", "std_e2el_ms"]
    theirs |= {name: getattr(told, name) for name in names}
    theirs |= {f"p{level}_ttft_ms": value for level, value in told.percentiles_ttft_ms}
    theirs |= {f"p{level}_e2el_ms": value for level, value in told.percentiles_e2el_ms}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)
    assert ours["mean_itl_ms"] == pytest.approx(told.mean_tpot_ms, rel=1e-3)


def test_what_is_undefined_is_none(machine: Callable[..., Deployment]) -> None:
    one = Synthetic(Fixed(100, 1), 1, at_once=True)
    report = simulate(EngineSettings(), machine(), one.at(1.0, 0))
    found = bench_result(report, machine(), one, 1.0, 0)
    undefined = {"mean_tpot_ms", "p99_itl_ms", "std_itl_ms", "request_goodput", "burstiness"}
    assert {found[name] for name in undefined} == {None}
    assert found["request_rate"] == "inf"


def test_the_deviation_of_gaps_is_that_of_all_gaps(report: Report) -> None:
    gaps = report.gaps
    edges = np.array(gaps.cdf())
    counts = np.diff(edges[:, 1], prepend=0.0)
    mean_s = float((edges[:, 0] * counts).sum())
    assert gaps.moments == pytest.approx(
        (mean_s, float((((edges[:, 0] - mean_s) ** 2) * counts).sum()) ** 0.5)
    )


def test_vllms_plots_draw_what_is_written(
    tmp_path: Path, report: Report, machine: Callable[..., Deployment]
) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("seaborn")
    from vllm.benchmarks.sweep import plot, plot_pareto

    results = [
        bench_result(replace(report, label=label), machine(), TRAFFIC, rate, 0)
        for label in ("stock:512", "sarathi") for rate in (10.0, 20.0)
    ]  # fmt: skip
    write_results(results, tmp_path)
    parser = argparse.ArgumentParser()
    plot.SweepPlotArgs.add_cli_args(parser)
    axes = ["--var-x", "request_rate", "--var-y", "p99_ttft_ms", "--curve-by", "label"]
    plot.main(parser.parse_args([str(tmp_path), *axes]))
    assert (tmp_path / "FIGURE.png").exists()
    parser = argparse.ArgumentParser()
    plot_pareto.SweepPlotParetoArgs.add_cli_args(parser)
    plot_pareto.main(parser.parse_args([str(tmp_path)]))
    assert (tmp_path / "pareto" / "PARETO.png").exists()
