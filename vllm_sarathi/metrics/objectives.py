"""How objectives are met, by class of objectives.

A class is the ``qos`` of a request: one of the few names that the settings allow.
"""

from collections.abc import Callable, Iterable
from functools import cache
from math import inf
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from vllm_sarathi.metrics.answer_record import AnswerRecord
from vllm_sarathi.objectives import RequestObjectives

_WAITING_S = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
_SLACK_S = (-60, -30, -10, -5, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SHARE = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.9999, 1)
_KINDS = "ttft (first token), tpot (mean of later ones), tbt (every gap), e2e (last token)"


class ObjectivesRecorder:
    """Metrics per class of objectives. A series appears with the first request of its class.

    Args:
        registry: where the metrics go.
        prefix: what their names begin with.
        labels: labels of all of them, by name.
        objectives: those of the classes, which a histogram of latencies shall tell apart.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        prefix: str,
        labels: dict[str, str],
        objectives: Iterable[RequestObjectives],
    ) -> None:
        self._registry = registry
        self._prefix = prefix
        self._labels = labels
        self._make_verdicts()
        self._make_times({asked.ttft_s for asked in objectives if asked.ttft_s is not None})

    def _make_verdicts(self) -> None:
        text = f"Finished requests that met an objective of this kind: {_KINDS}."
        self._attained = self._metric(Counter, "objectives_attained", text, "qos", "kind")
        text = f"Finished requests that missed an objective of this kind: {_KINDS}."
        self._missed = self._metric(Counter, "objectives_missed", text, "qos", "kind")
        text = "Finished requests that met all their objectives."
        self._attained_all = self._metric(Counter, "requests_attained", text, "qos")
        text = "Finished requests that missed one of their objectives or more."
        self._missed_any = self._metric(Counter, "requests_missed", text, "qos")
        text = "Requests that stepped aside for others: too late to get a first token in time."
        self._relegated = self._metric(Counter, "relegated_requests", text, "qos")
        text = "Requests that were refused: they waited, too late to get a first token in time."
        self._shed = self._metric(Counter, "shed_requests", text, "qos")
        text = "Tokens that came after a longer gap than a strict objective for gaps allows."
        self._late_tokens = self._metric(Counter, "tbt_objective_misses", text)()
        text = "First tokens that came later than the objective for first tokens."
        self._late_first = self._metric(Counter, "ttft_objective_misses", text)()

    def _make_times(self, ttfts: set[float]) -> None:
        text = "Time from a request's arrival until the first step that runs some of it."
        buckets = sorted({*_WAITING_S, *ttfts})
        self._waiting = self._metric(Histogram, "waiting_seconds", text, "qos", buckets=buckets)
        text = "Time left until its deadline when a first token came; negative where it was late."
        self._slack = self._metric(
            Histogram, "deadline_slack_seconds", text, "qos", buckets=_SLACK_S
        )
        text = (
            "Share of its tokens' deadlines that a finished request met: early tokens earn slack, "
            "a stall misses every deadline that it spans (Etalon, arXiv 2407.07000)."
        )
        self._fluidity = self._metric(Histogram, "fluidity", text, "qos", buckets=_SHARE)

    def follow(self, objectives: RequestObjectives, arrival_s: float) -> AnswerRecord:
        """A listener to the tokens of a request that arrived then, on the tokens' clock."""
        return AnswerRecord(self, objectives, arrival_s)

    def waited(self, objectives: RequestObjectives, waiting_s: float) -> None:
        """Count a request that runs for the first time."""
        self._waiting(objectives.qos).observe(max(waiting_s, 0.0))

    def relegated(self, objectives: RequestObjectives) -> None:
        """Count a request that steps aside."""
        self._relegated(objectives.qos).inc()

    def shed(self, objectives: RequestObjectives) -> None:
        """Count a request that is refused instead."""
        self._shed(objectives.qos).inc()

    def late_tokens(self, num_tokens: int) -> None:
        """Count tokens that came after a longer gap than a strict objective allows."""
        self._late_tokens.inc(num_tokens)

    def began(self, objectives: RequestObjectives, ttft_s: float, slack_s: float) -> None:
        """Count a first token.

        Args:
            objectives: its request's.
            ttft_s: time since arrival.
            slack_s: time until it was due; infinite where it was not.
        """
        if slack_s < inf:
            self._slack(objectives.qos).observe(slack_s)
        if objectives.ttft_s is not None and ttft_s > objectives.ttft_s:
            self._late_first.inc()

    def ended(
        self, objectives: RequestObjectives, met: dict[str, bool], fluidity: float | None
    ) -> None:
        """Count a finished request.

        Args:
            objectives: what it asked.
            met: for each kind of objective that it had, whether it was met.
            fluidity: share of its tokens' deadlines that were met, if they had any.
        """
        qos = objectives.qos
        for kind, is_met in met.items():
            (self._attained if is_met else self._missed)(qos, kind).inc()
        if met:
            (self._attained_all if all(met.values()) else self._missed_any)(qos).inc()
        if fluidity is not None:
            self._fluidity(qos).observe(fluidity)

    def _metric(
        self, kind: Any, name: str, text: str, *more: str, **options: Any
    ) -> Callable[..., Any]:
        """A metric: called with the values of its further labels, the series."""
        names, values = (*self._labels, *more), tuple(self._labels.values())
        family = kind(self._prefix + name, text, names, registry=self._registry, **options)
        return cache(lambda *further: family.labels(*values, *further))
