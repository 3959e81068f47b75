"""The charts of the page."""

from collections.abc import Iterator, Sequence

import numpy as np

from vllm_sarathi.report.charts import (
    Chart,
    Mark,
    TimeAxis,
    ValueAxis,
    bars,
    level,
    line,
    stack,
    value_axis,
)
from vllm_sarathi.report.series import LIMITS, Floats, idle_bins, ratio
from vllm_sarathi.report.summary import ClassTotals, Summary, main_class
from vllm_sarathi.report.words import duration

_MOST_CLASSES = 6
_MOST_LIMITS = 5


def _count(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _share(value: float) -> str:
    return f"{value:.0%}"


class Plots:
    """Draws one summary."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._bins = summary.bins
        self._times_s = np.minimum(self._bins.middle_s, summary.end_s)
        self._idle = idle_bins(self._bins)
        self._x = TimeAxis(0.0, max(summary.end_s, 1e-6))

    def gaps(self) -> list[Chart]:
        """A chart for each class: its gaps against their objective."""
        return list(self._waits("gap", "Gaps between tokens", self._summary.gaps))

    def first_tokens(self) -> list[Chart]:
        """A chart for each class: time to first token against its objective."""
        return list(self._waits("first", "First tokens", self._summary.first_tokens))

    def others(self) -> list[Chart]:
        """Batches, step times, what bound them, queues; a pipeline's stages."""
        charts = [
            self.composition(),
            self.step_time(),
            self.limits(),
            self.queue(),
            self.admission(),
        ]
        if self._bins.total("staged"):
            charts.append(self.stages())
        return charts

    def _waits(self, kind: str, title: str, totals: dict[str, ClassTotals]) -> Iterator[Chart]:
        bins = self._bins
        for qos in main_class(totals)[:_MOST_CLASSES]:
            total, of = totals[qos], f"{kind} {qos}"
            longest = np.where(bins.sum(f"{of} num") > 0, bins.most(f"{of} longest_s"), np.nan)
            y = value_axis(max(total.longest_s, total.objective_s or 0.0), duration)
            mean = bins.mean(f"{of} total_s", f"{of} num")
            marks = [
                Mark("mean", "soft", "line", self._line(mean, y)),
                Mark("longest", "main", "line", self._line(longest, y)),
            ]
            tpot_s = self._summary.tpot_s(qos) if kind == "gap" else None
            if tpot_s:
                marks.append(Mark("TPOT, for the mean", "c0", "dashed", level(tpot_s, y)))
            note = f"{total.num:,}; no objective"
            if total.objective_s is not None:
                note = f"{total.num_late:,} of {total.num:,} later than the objective"
                asked = self._line(bins.mean(f"{of} objective_s", f"{of} asked"), y)
                marks.append(Mark("objective", "bad", "dashed", asked))
            if total.num_late:
                late = np.where(bins.sum(f"{of} late") > 0, np.nan_to_num(longest), 0.0)
                marks.insert(0, Mark("late", "bad", "bars", self._bars(late, y)))
            yield self._chart(f"{title}: {qos}", note, y, marks)

    def composition(self) -> Chart:
        """Tokens of a step, decodes and prefill, under its budget."""
        bins = self._bins
        decode, prefill = bins.mean("decode_tokens"), bins.mean("prefill_tokens")
        budget = bins.mean("budget", "with_prefill")
        y = value_axis(float(np.nanmax([*(decode + prefill), 1.0])), _count)
        areas = self._areas((decode, prefill), y)
        marks = [
            Mark("decode tokens", "c0", "area", areas[0]),
            Mark("prefill tokens", "c1", "area", areas[1]),
        ]
        shown = np.where(budget <= y.top, budget, np.nan)
        marks.append(Mark("budget of steps with prefill", "main", "line", self._line(shown, y)))
        note = "tokens in a step, mean; a budget above the chart is not shown"
        return self._chart("Batch composition", note, y, marks)

    def step_time(self) -> Chart:
        """Predicted against measured."""
        bins = self._bins
        predicted, measured = bins.mean("predicted_s", "known"), bins.mean("measured_s", "known")
        longest = np.where(bins.sum("timed") > 0, bins.most("longest_s"), np.nan)
        y = value_axis(float(np.nanmax([*longest, 1e-4])), duration)
        middle, high = (self._summary.ratio_quantile(q) for q in (0.5, 0.99))
        note = "means, and the longest"
        if middle and high:
            note = f"measured over predicted: median {middle:.2f}, 99th percentile {high:.2f}"
        marks = [
            Mark("longest measured", "soft", "line", self._line(longest, y)),
            Mark("measured", "c0", "line", self._line(measured, y)),
            Mark("predicted", "c1", "dashed", self._line(predicted, y)),
        ]
        return self._chart("Step time", note, y, marks)

    def limits(self) -> Chart:
        """What kept steps from being larger, as shares of time."""
        bins = self._bins
        names = sorted(LIMITS, key=lambda name: -bins.total(f"limit {name}"))
        names = [name for name in names if bins.total(f"limit {name}")]
        whole = np.array(sum((bins.sum(f"limit {name}") for name in names), np.zeros(1)))
        y = ValueAxis(1.0, _share)
        shown = [ratio(bins.sum(f"limit {name}"), whole, 0.0) for name in names[:_MOST_LIMITS]]
        areas = self._areas(shown, y)
        marks = [
            Mark(name.replace("_", " "), f"c{number}", "area", path)
            for number, (name, path) in enumerate(zip(names, areas, strict=False))
        ]
        note = "share of step time"
        if self._summary.settings.get("preset") == "observe":
            note = 'vLLM decides under "observe": its limits are not told'
        return self._chart("What bound the batch", note, y, marks)

    def queue(self) -> Chart:
        """Requests that wait and run."""
        bins = self._bins
        waiting, running, aside = (bins.mean(name) for name in ("waiting", "running", "aside"))
        y = value_axis(float(np.nanmax([*waiting, *running, 1.0])), _count)
        marks = [
            Mark("running", "c0", "line", self._line(running, y)),
            Mark("waiting", "c1", "line", self._line(waiting, y)),
        ]
        if bins.total("aside"):
            marks.append(Mark("waiting, no deadline to keep", "bad", "line", self._line(aside, y)))
        return self._chart("Requests", "mean of the steps", y, marks)

    def admission(self) -> Chart:
        """Admissions held back, KV cache, and who could not be in time."""
        bins, y = self._bins, ValueAxis(1.0, _share)
        reasons = {"kv_blocks": "held back: KV blocks", "pace": "held back: pace"}
        shares = [bins.mean(f"held back {name}") for name in reasons]
        areas = self._areas(shares, y)
        marks = [
            Mark(text, f"c{number + 1}", "area", areas[number])
            for number, (name, text) in enumerate(reasons.items())
            if bins.total(f"held back {name}")
        ]
        marks.append(Mark("KV cache in use", "c0", "line", self._line(bins.mean("kv_usage"), y)))
        told = {"relegated": "stepped aside", "shed": "shed", "preempted": "preempted"}
        late = sum((bins.sum(name) for name in ("relegated", "shed")), np.zeros(1))
        if late.any():
            marks.insert(0, Mark("stepped aside or shed (own scale)", "bad", "bars",
                                 self._bars(0.35 * late / late.max(), y)))  # fmt: skip
        note = ", ".join(f"{bins.total(name):,.0f} {text}" for name, text in told.items())
        return self._chart("Admission", f"share of steps; {note}", y, marks)

    def stages(self) -> Chart:
        """How full and how even a pipeline is."""
        bins, num_stages = self._bins, self._summary.num_stages
        y = ValueAxis(1.0, _share)
        filled = bins.mean("in_flight") / num_stages
        marks = [
            Mark("idle stage time, predicted", "bad", "line",
                 self._line(bins.mean("stage_idle", "staged"), y)),
            Mark(f"micro-batches in flight, of {num_stages}", "c0", "line",
                 self._line(filled, y)),
        ]  # fmt: skip
        return self._chart("Pipeline", "uneven or missing micro-batches idle stages", y, marks)

    def _chart(self, title: str, note: str, y: ValueAxis, marks: list[Mark]) -> Chart:
        return Chart(title, note, self._x.ticks, y.ticks, tuple(marks))

    def _line(self, values: Floats, y: ValueAxis) -> str:
        return line(self._times_s, values, self._idle, self._x, y)

    def _areas(self, layers: Sequence[Floats], y: ValueAxis) -> tuple[str, ...]:
        drawn = self._idle | (self._bins.sum("steps") > 0)
        return stack(self._times_s[drawn], [values[drawn] for values in layers], self._x, y)

    def _bars(self, values: Floats, y: ValueAxis) -> str:
        return bars(self._times_s, values, self._bins.width_s, self._x, y)
