"""Steps one by one on the stages of the pipeline, around the worst gap."""

from collections.abc import Sequence

from vllm_sarathi.report.charts import Chart, Mark, Tick, TimeAxis, box
from vllm_sarathi.report.series import Ended
from vllm_sarathi.report.words import duration
from vllm_sarathi.report.worst import Incident

_KINDS = {
    "prefill": ("prefill alone", "c2"),
    "mixed": ("prefill with decodes", "c1"),
    "decode": ("decodes alone", "c0"),
}
_AROUND = 1.0
"""Time shown before and after the gap, as a share of it."""
_STEPS_AROUND = 8


def timeline(around: Sequence[Ended], worst: Incident | None, num_stages: int) -> Chart | None:
    """The steps around the worst gap; None where nothing is known of any."""
    if worst is None or not around:
        return None
    step_s = (around[-1].end_s - around[0].begin_s) / len(around)
    margin_s = max(_AROUND * worst.waits.longest_s, _STEPS_AROUND * step_s)
    begin_s = max(worst.begin_s - margin_s, around[0].begin_s)
    x = TimeAxis(begin_s, min(worst.end_s + margin_s, around[-1].end_s))
    paths: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for ended, spans in zip(around, on_stages(around, num_stages), strict=True):
        for stage, (from_s, to_s) in enumerate(spans):
            top, bottom = 100 * (stage + 0.1) / num_stages, 100 * (stage + 0.9) / num_stages
            paths[_kind(ended)].append(box(from_s, to_s, top, bottom, x))
    marks = [Mark("the gap", "gap", "area", box(worst.begin_s, worst.end_s, 0, 100, x))]
    marks += [
        Mark(name, color, "blocks", "".join(paths[kind]))
        for kind, (name, color) in _KINDS.items()
        if paths[kind]
    ]
    rows = tuple(
        Tick(100 * (stage + 0.5) / num_stages, f"stage {stage}" if num_stages > 1 else "engine")
        for stage in range(num_stages)
    )
    note = f"{duration(x.end_s - x.begin_s)} around the worst gap"
    if num_stages > 1:
        note += "; of stages before the last, reconstructed from predicted times"
    ticks = tuple(
        Tick(tick.at, f"+{duration(tick_s)}" if tick_s else "0")
        for tick in _from_zero(x).ticks
        for tick_s in (round(tick.at / 100 * (x.end_s - x.begin_s), 4),)
    )
    return Chart("Stage timeline", note, ticks, rows, tuple(marks))


def on_stages(around: Sequence[Ended], num_stages: int) -> list[tuple[tuple[float, float], ...]]:
    """When each step was on each stage.

    Only results are known. A step left the last stage then; before that it is taken to have been
    on each stage as long as predicted, as late as the step after it allows.
    """
    if num_stages == 1:
        return [((ended.begin_s, ended.end_s),) for ended in around]
    found: list[tuple[tuple[float, float], ...]] = []
    after_s = [float("inf")] * num_stages
    for ended in reversed(around):
        length_s = ended.step.predicted_s or ended.end_s - ended.begin_s
        spans, end_s = list[tuple[float, float]](), ended.end_s
        for stage in reversed(range(num_stages)):
            end_s = min(end_s, after_s[stage])
            spans.append((end_s - length_s, end_s))
            end_s -= length_s
            after_s[stage] = end_s
        found.append(tuple(reversed(spans)))
    return found[::-1]


def _from_zero(x: TimeAxis) -> TimeAxis:
    return TimeAxis(0.0, x.end_s - x.begin_s)


def _kind(ended: Ended) -> str:
    if not ended.step.num_prefill_tokens:
        return "decode"
    return "mixed" if ended.step.num_decodes else "prefill"
