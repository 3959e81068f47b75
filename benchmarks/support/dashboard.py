"""What the dashboard shows: panels, and the queries behind them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from support.promql import increase, latest, mean, quantiles, rate, series, share

from vllm_sarathi.metrics.catalogue import PREFIX

_METRIC = re.compile(r"vllm(?:_sarathi)?:[a-z0-9_]+")
_PART = re.compile(r"_(bucket|sum|count)$")


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel.

    Attributes:
        title: its title.
        text: what it shows, and what to make of it.
        queries: what it queries, by legend; ``{{label}}`` is a label's value.
        unit: Grafana's name of the unit.
        kind: how it is drawn; "stacked" is lines on top of each other.
    """

    title: str
    text: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["lines", "stacked", "stat", "labels"] = "lines"

    @property
    def metrics(self) -> list[str]:
        """The metrics that it queries, histograms without the endings of their series."""
        found = (name for query in self.queries.values() for name in _METRIC.findall(query))
        return list(dict.fromkeys(_PART.sub("", name) for name in found))


def ours(name: str) -> str:
    """A metric of this scheduler's by its name without the prefix."""
    return PREFIX + name


_ITL = "vllm:inter_token_latency_seconds"
_MET, _MISSED = ours("requests_attained_total"), ours("requests_missed_total")
_VLLM_ALONE = 'limit="vllm"'
_STEPS, _FAULTS = ours("steps_total"), ours("faults_total")
_OBJECTIVE = {"objective": latest("max", ours("tbt_objective_seconds"))}
_LATENCY_P95 = quantiles(ours("latency_seconds"), 95, by="qos, kind")["p95"]
_OBJECTIVES_S = latest("max by (qos, kind) ", ours("objective_seconds"))

_AT_A_GLANCE = (
    Panel(
        "Requests in time",
        "Share of finished requests that met all their objectives.",
        {"in time": share(_MET, _MISSED)},
        "percentunit",
        "stat",
    ),
    Panel("Gap, p99", "Time between two tokens.", quantiles(_ITL, 99), "s", "stat"),
    Panel("Gap objective", "Longest gap that steps are sized for.", _OBJECTIVE, "s", "stat"),
    Panel(
        "Measured over predicted",
        "Median of step times. Far from 1, the model does not know this hardware (yet).",
        quantiles(ours("step_time_ratio"), 50),
        "none",
        "stat",
    ),
    Panel(
        "Steps by vLLM alone",
        'Share of steps. All of them under preset "observe"; else 0, or faults made it give up.',
        {"alone": f"{rate(_STEPS, '', _VLLM_ALONE)} / ({rate(_STEPS)} > 0)"},
        "percentunit",
        "stat",
    ),
    Panel(
        "Faults in the last hour",
        "Exceptions in this scheduler; vLLM went on without it.",
        {"faults": increase(_FAULTS, window="1h")},
        "none",
        "stat",
    ),
)

_OBJECTIVES = (
    Panel(
        "Requests that met all objectives",
        "Share of finished requests of each class.",
        {"{{qos}}": share(_MET, _MISSED, "qos")},
        "percentunit",
    ),
    Panel(
        "Objectives met, by kind",
        "Share of finished requests that had such an objective: ttft (first token), tpot (mean of "
        "later ones), tbt (every gap), e2e (last token).",
        {
            "{{qos}} {{kind}}": share(
                ours("objectives_attained_total"), ours("objectives_missed_total"), "qos, kind"
            )
        },
        "percentunit",
    ),
    Panel(
        "Gap between tokens",
        "Over all requests, beside the gap that steps are sized for (objective), and the shortest "
        "typical one without any prefill.",
        quantiles(_ITL, 50, 95, 99)
        | {"shortest": latest("max", ours("least_gap_seconds"))}
        | _OBJECTIVE,
        "s",
    ),
    Panel(
        "Late tokens",
        "Tokens per second that came after a longer gap than a strict objective allows.",
        {"late": rate(ours("late_tokens_total"))},
    ),
    Panel(
        "Latency over objective, p95",
        "TTFT, TPOT and end-to-end latency of requests that had such an objective, over that of "
        "their class: 1 is just in time.",
        {"{{qos}} {{kind}}": f"{_LATENCY_P95} / on (qos, kind) {_OBJECTIVES_S}"},
        "none",
    ),
    Panel(
        "Time to first token",
        "Over all requests, those without objectives included.",
        quantiles("vllm:time_to_first_token_seconds", 50, 95, 99),
        "s",
    ),
    Panel(
        "Wait until the first step, p95",
        "From arrival until the first step that runs some of a request.",
        quantiles(ours("waiting_seconds"), 95, legend="{{qos}}", by="qos"),
        "s",
    ),
    Panel(
        "Time left at the first token, p5",
        "The tightest of twenty; below 0 it was late.",
        quantiles(ours("deadline_slack_seconds"), 5, legend="{{qos}}", by="qos"),
        "s",
    ),
    Panel(
        "Token deadlines met",
        "Mean fluidity: early tokens earn slack, a stall misses each deadline that it spans.",
        {"{{qos}}": mean(ours("fluidity_ratio"), "qos")},
        "percentunit",
    ),
    Panel(
        "Too late to be in time",
        "Requests per second that stepped aside for others, or were refused.",
        {
            "{{qos}} aside": rate(ours("relegated_requests_total"), "qos"),
            "{{qos}} refused": rate(ours("shed_requests_total"), "qos"),
        },
        "reqps",
    ),
)

_STEPS_ROW = (
    Panel(
        "What kept steps from being larger",
        "Steps per second. objective: the gap objective is at work; no_more_prefill: nothing more "
        "waited; maximum: raise max_num_batched_tokens; kv_blocks: the KV cache is full; pace: as "
        "many requests run as their objectives carry.",
        {"{{limit}}": rate(_STEPS, "limit")},
        "ops",
        "stacked",
    ),
    Panel(
        "Token budget of steps with prefill",
        "Most tokens that a step might run, decodes included.",
        quantiles(ours("step_budget_tokens"), 10, 50, 90),
    ),
    Panel(
        "Tokens of a step, mean",
        "What steps ran.",
        {
            "prefill": mean(ours("step_prefill_tokens")),
            "decode": mean(ours("step_decode_tokens")),
        },
        kind="stacked",
    ),
    Panel(
        "Step time, predicted and measured",
        "Means should lie on each other; the measured p99 below the objective.",
        {
            "predicted, mean": mean(ours("predicted_step_seconds")),
            "measured, mean": mean(ours("measured_step_seconds")),
        }
        | quantiles(ours("measured_step_seconds"), 99, legend="measured, p%d")
        | _OBJECTIVE,
        "s",
    ),
    Panel(
        "Measured over predicted step time",
        "1 is exact. The safety factor covers 99% of the errors: predictions are multiplied by it.",
        quantiles(ours("step_time_ratio"), 1, 50, 99)
        | {"safety factor": latest("max", ours("step_time_safety_ratio"))},
        "none",
    ),
    Panel(
        "Decodes beside prefill",
        "Per second: those that ran in a step with a prefill chunk, and those that sat one out.",
        {
            "ran along": rate(ours("piggybacked_decodes_total")),
            "paused": rate(ours("decode_pauses_total")),
        },
        "ops",
    ),
    Panel(
        "Chunks of a prompt",
        "How often a prompt was cut.",
        quantiles(ours("prompt_chunks"), 50, 95),
    ),
    Panel(
        "Steps that admitted nobody",
        "Per second, though fewer than max_num_seqs ran, by class of the first that waits. "
        "kv_blocks: kept for running requests; pace: one more would make running ones miss their "
        "objectives.",
        {"{{qos}}: {{reason}}": rate(ours("admission_blocked_steps_total"), "qos, reason")},
        "ops",
        "stacked",
    ),
    Panel(
        "Time that planning adds to a step",
        "Beside vLLM's own schedule().",
        quantiles(ours("schedule_overhead_seconds"), 50, 99),
        "s",
    ),
)

_LOAD = (
    Panel(
        "Requests",
        "vLLM's own count.",
        {
            "running": latest("sum", "vllm:num_requests_running"),
            "waiting": latest("sum", "vllm:num_requests_waiting"),
        },
    ),
    Panel(
        "KV cache",
        "The fullest engine.",
        {"usage": latest("max", "vllm:kv_cache_usage_perc")},
        "percentunit",
    ),
    Panel("Preemptions", "Per second.", {"preempted": rate("vllm:num_preemptions_total")}, "ops"),
    Panel(
        "Throughput while there is work",
        "Tokens per second: prefill over steps that could not hold all that waited, decode over "
        "steps with decodes.",
        {
            "prefill": latest("sum", ours("prefill_tokens_per_second")),
            "decode": latest("sum", ours("decode_tokens_per_second")),
        },
    ),
    Panel(
        "Recommended --max-num-queued-tokens",
        "What is prefilled within ttft_slo_ms; absent without that setting.",
        {"tokens": latest("sum", ours("recommended_max_num_queued_tokens"))},
    ),
    Panel(
        "Faults",
        "Exceptions in this scheduler, by what it was doing. 0 is normal.",
        {"{{where}}": increase(_FAULTS, "where")},
        "none",
    ),
)

_PIPELINES = (
    Panel(
        "Longest over mean micro-batch",
        "1 is even.",
        quantiles(ours("micro_batch_imbalance_ratio"), 50, 95),
        "none",
    ),
    Panel(
        "Stage time idle",
        "What uneven micro-batches leave idle, as predicted.",
        {"mean": mean(ours("stage_idle_ratio"))},
        "percentunit",
    ),
)

_SETTINGS = (
    Panel(
        "Settings",
        "Of an engine that is selected; they rarely differ.",
        {"": series(ours("settings_info"))},
        kind="labels",
    ),
)

ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": _AT_A_GLANCE,
    "Objectives": _OBJECTIVES,
    "Steps": _STEPS_ROW,
    "Load": _LOAD,
    "Pipeline parallelism": _PIPELINES,
    "Settings": _SETTINGS,
}
"""The dashboard, from top to bottom."""


def panels() -> Iterator[Panel]:
    """All panels."""
    for row in ROWS.values():
        yield from row
