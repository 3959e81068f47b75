from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vllm_sarathi.latency import Objectives
from vllm_sarathi.simulator.results import rate_plots
from vllm_sarathi.simulator.results.notes import ByEngine
from vllm_sarathi.simulator.results.style import LineStyle, line_styles


def run(rate: float, seed: int = 0, **figures: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"rate_rps": rate, "seed": seed, "completed": True}
    for level in (50, 90, 99):
        found |= {f"ttft_p{level}_s": 0.1 * rate * (1 + seed), f"tpot_p{level}_ms": 20.0}
        found |= {f"tbt_p{level}_ms": 30.0}
    goodput = {"goodput": 1.0, "request_goodput": rate, "output_tokens_per_s": 100 * rate}
    return found | goodput | figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures instead of files."""
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        kept.append(figure)
        return path

    monkeypatch.setattr(rate_plots, "save", keep)
    return kept


def lines(figure: Figure, panel: int) -> list[Sequence[float]]:
    return [np.asarray(line.get_ydata()).tolist() for line in figure.axes[panel].lines]


def test_a_line_is_the_mean_over_seeds_and_its_band_spans_them(drawn: list[Figure]) -> None:
    runs = [run(rate, seed) for rate in (2.0, 1.0) for seed in (0, 1)]
    rate_plots.draw_rates({"stock": list(runs)}, Path("x.png"))
    assert lines(drawn[0], 0) == [pytest.approx([150.0, 300.0])]
    (band,) = drawn[0].axes[0].collections
    points = band.get_paths()[0].vertices
    assert np.min(points, axis=0).tolist() == pytest.approx([1.0, 100.0])
    assert np.max(points, axis=0).tolist() == pytest.approx([2.0, 400.0])


@pytest.mark.parametrize(
    "undefined", [{"ttft_p50_s": None}, {"completed": False}, {"error": "no", "ttft_p50_s": None}]
)
def test_what_is_undefined_leaves_a_gap(drawn: list[Figure], undefined: dict[str, Any]) -> None:
    runs: ByEngine = {"stock": [run(1.0), run(2.0, **undefined), run(3.0), None]}
    rate_plots.draw_rates(runs, Path("x.png"))
    (line,) = lines(drawn[0], 0)
    assert np.isnan(line).tolist() == [False, True, False]


def test_every_panel_has_a_title_and_the_axes_have_units(drawn: list[Figure]) -> None:
    rate_plots.draw_rates({"stock": [run(1.0)]}, Path("x.png"), Objectives(ttft_s=2.0))
    figure = drawn[0]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["TTFT, P50", "TTFT, P90", "TTFT, P99"]
    assert figure.axes[3].get_ylabel() == "TPOT, ms"
    assert {axes.get_xlabel() for axes in figure.axes[-3:]} == {"offered load, requests/s"}
    assert lines(figure, 0)[-1] == [2000.0, 2000.0]


def test_without_objectives_the_panels_of_goodput_say_so(drawn: list[Figure]) -> None:
    runs: ByEngine = {"stock": [run(1.0, goodput=None, request_goodput=None)]}
    rate_plots.draw_rates(runs, Path("x.png"))
    assert [text.get_text() for text in drawn[0].axes[9].texts] == ["no objectives"]


def test_engines_are_told_apart_without_colour_too() -> None:
    def distinct(styles: list[LineStyle]) -> int:
        return len({(style.marker, style.dashes) for style in styles})

    styles = [style for style, _ in zip(line_styles(), range(20), strict=False)]
    assert distinct(styles) == 20


def test_a_capacity_has_its_interval_and_one_that_is_none_says_so(drawn: list[Figure]) -> None:
    found: ByEngine = {
        "some": [{"capacity_rps": rate} for rate in (1.0, 2.0, 3.0)],
        "none": [{"capacity_rps": 0.0}],
        "failed": [{"error": "no"}],
    }
    rate_plots.draw_capacities(found, Path("x.png"))
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == [
        "2",
        " no rate meets the goal",
        " not known",
    ]
    (bar,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert bar.get_width() == 2.0
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found)
