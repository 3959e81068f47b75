"""The figures of the view: a row each, with a text for every server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from vllm_sarathi.top.names import Sarathi, Setting, Vllm
from vllm_sarathi.top.span import Span, ratio
from vllm_sarathi.top.texts import UNKNOWN, numbers, percent

_SHARES = (0.5, 0.9, 0.99)
_SHARES_LEFT = (0.5, 0.1, 0.01)
"""50, 90 and 99% of first tokens come with more time left than these quantiles of it."""
_KINDS = ("ttft", "tpot", "tbt", "e2e")
_MAX_LIMITS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        label: what it is.
        cell: its text for a server.
    """

    label: str
    cell: Callable[[Span], str]


def rows(spans: Sequence[Span]) -> list[Row]:
    """The rows that any of these servers can fill."""
    shown = [*_LOAD, *_LATENCIES]
    if any(span.last.select(Sarathi.SETTINGS) for span in spans):
        asked = [row for row in _ASKED if any(row.cell(span) != UNKNOWN for span in spans)]
        shown += [*asked, *_classes(spans), *_STEPS, *_limits(spans), *_faults(spans)]
    return shown


def _classes(spans: Sequence[Span]) -> list[Row]:
    """Per class of requests how each kind of objective was met; of first tokens how far too."""
    shown, judged = [], (Sarathi.ATTAINED, Sarathi.MISSED)
    for qos in sorted(set[str]().union(*(s.last.values_of("qos", *judged) for s in spans))):
        for kind in _KINDS:
            if any(s.last.total(name, qos=qos, kind=kind) for s in spans for name in judged):
                shown.append(Row(f"{qos} {kind} met", partial(_met, qos=qos, kind=kind)))
        if any(s.last.select(f"{Sarathi.SLACK}_bucket", qos=qos) for s in spans):
            shown.append(Row(f"{qos} ttft left, s", partial(_left, qos=qos)))
    return shown


def _limits(spans: Sequence[Span]) -> list[Row]:
    """What bound the steps, the most frequent first, and what let them admit nobody."""
    shown = []
    for name, label, text in (
        (Sarathi.LIMIT, "limit", "bound by"),
        (Sarathi.ADMISSION_BLOCKED, "reason", "none admitted:"),
    ):
        found = {
            value: max(_of_steps(span, name, label, value) or 0 for span in spans)
            for value in set[str]().union(*(s.last.values_of(label, name) for s in spans))
        }
        often = sorted(filter(found.get, found), key=lambda value: (-found[value], value))
        for value in often[:_MAX_LIMITS]:
            cell = partial(_percent_of_steps, name=name, label=label, value=value)
            shown.append(Row(f"{text} {value}", cell))
    return shown


def _faults(spans: Sequence[Span]) -> list[Row]:
    """Since the server's start, for one is worth a look whenever it was."""
    if not any(span.last.total(Sarathi.FAULTS) for span in spans):
        return []
    return [Row("faults since its start", lambda s: numbers(s.last.total(Sarathi.FAULTS)))]


def _of_steps(span: Span, name: str, label: str, value: str) -> float | None:
    return ratio(span.increase(name, **{label: value}), span.increase(Sarathi.LIMIT))


def _percent_of_steps(span: Span, name: str, label: str, value: str) -> str:
    return percent(_of_steps(span, name, label, value))


def _met(span: Span, qos: str, kind: str) -> str:
    attained, missed = (
        span.increase(name, qos=qos, kind=kind) or 0 for name in (Sarathi.ATTAINED, Sarathi.MISSED)
    )
    judged = attained + missed
    return f"{attained / judged:.0%} of {judged:.0f}" if judged else UNKNOWN


def _left(span: Span, qos: str) -> str:
    return numbers(*span.quantiles(Sarathi.SLACK, _SHARES_LEFT, qos=qos))


def _quantiles(span: Span, name: str, per_unit: float = 1) -> str:
    return numbers(*(value * per_unit for value in span.quantiles(name, _SHARES)))


def _ms(span: Span, name: str) -> str:
    return _quantiles(span, name, 1e3)


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(values)) or UNKNOWN


def _model(span: Span) -> str:
    return _listed({n.rpartition("/")[2] for n in span.last.values_of("model_name", Vllm.RUNNING)})


def _setting(span: Span, setting: Setting) -> str:
    values = span.last.values_of(setting, Sarathi.SETTINGS) - {"None"}
    return _listed({value.removesuffix(".0") for value in values})


def _tbt_objective(span: Span) -> str:
    """The one in force; 0 until a step has shown it."""
    objective_s = span.last.highest(Sarathi.TBT_OBJECTIVE)
    return numbers(1e3 * objective_s if objective_s else None)


_LOAD = (
    Row("model", _model),
    Row(
        "running + waiting",
        lambda s: numbers(s.last.total(Vllm.RUNNING), s.last.total(Vllm.WAITING), by=" + "),
    ),
    Row("KV cache used", lambda s: percent(s.last.highest(Vllm.KV_CACHE))),
    Row("requests/s", lambda s: numbers(s.rate(Vllm.FINISHED))),
    Row(
        "prompt + output tokens/s",
        lambda s: numbers(s.rate(Vllm.PROMPT_TOKENS), s.rate(Vllm.OUTPUT_TOKENS), by=" + "),
    ),
    Row("preemptions", lambda s: numbers(s.increase(Vllm.PREEMPTIONS))),
)
_LATENCIES = (
    Row("TTFT, ms", lambda s: _ms(s, Vllm.TTFT)),
    Row("TPOT, ms", lambda s: _ms(s, Vllm.TPOT)),
    Row("TBT, ms", lambda s: _ms(s, Vllm.TBT)),
)
_ASKED = (
    Row("sarathi preset", lambda s: _setting(s, Setting.PRESET)),
    Row("TTFT objective, ms", lambda s: _setting(s, Setting.TTFT)),
    Row("TPOT objective, ms", lambda s: _setting(s, Setting.TPOT)),
    Row("TBT objective now, ms", _tbt_objective),
    Row(
        "stepped aside + shed",
        lambda s: numbers(s.increase(Sarathi.RELEGATED), s.increase(Sarathi.SHED), by=" + "),
    ),
)
_STEPS = (
    Row("token budget", lambda s: _quantiles(s, Sarathi.BUDGET)),
    Row(
        "prefill + decode tokens",
        lambda s: numbers(s.mean(Sarathi.PREFILL_TOKENS), s.mean(Sarathi.DECODE_TOKENS), by=" + "),
    ),
    Row("step predicted, ms", lambda s: _ms(s, Sarathi.PREDICTED)),
    Row("step measured, ms", lambda s: _ms(s, Sarathi.MEASURED)),
    Row("measured / predicted", lambda s: _quantiles(s, Sarathi.RATIO)),
)
