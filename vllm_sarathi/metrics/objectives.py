"""How objectives are met, by class of objectives.

A class is the ``qos`` of a request: one of the few names that the settings allow.
"""

from collections.abc import Sequence
from math import inf

from vllm_sarathi.metrics.answer_record import AnswerRecord
from vllm_sarathi.metrics.catalogue import Catalogue
from vllm_sarathi.objectives import RequestObjectives
from vllm_sarathi.policy.step import BatchLimit

_WAITING_S = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
_LATENCY_S = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, *_WAITING_S[5:])
_SLACK_S = (-60, -30, -10, -5, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SHARE = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.9999, 1)
_KINDS = "ttft (first token), tpot (mean of later ones), tbt (every gap), e2e (last token)"
_BLOCKING = {
    BatchLimit.KV_BLOCKS: "free KV blocks are kept for running requests",
    BatchLimit.PACE: "one more request would make running ones miss their objectives",
}
BLOCKED_BY = ", ".join(f"{reason.value} ({text})" for reason, text in _BLOCKING.items())
"""Why a step admits nobody, in words."""


class ObjectivesRecorder:
    """Metrics per class of objectives.

    Args:
        catalogue: the metrics.
        objectives: those of the classes, which a histogram of latencies shall tell apart.
    """

    def __init__(self, catalogue: Catalogue, objectives: Sequence[RequestObjectives]) -> None:
        self._make_verdicts(catalogue)
        self._make_counts(catalogue, sorted({asked.qos for asked in objectives}))
        self._make_times(catalogue, objectives)
        text = f"Objective of requests of this class that ask nothing else: {_KINDS}."
        objective = catalogue.gauge("objective_seconds", text, "qos", "kind")
        for asked in objectives:
            if asked.by_kind_s.keys() - {"tbt"}:  # with gaps alone nobody follows single requests
                self._begin(asked)
            for kind, limit_s in asked.by_kind_s.items():
                objective(asked.qos, kind).set(limit_s)

    def _make_verdicts(self, catalogue: Catalogue) -> None:
        text = f"Finished requests that met an objective of this kind: {_KINDS}."
        self._attained = catalogue.counter("objectives_attained_total", text, qos=(), kind=())
        text = f"Finished requests that missed an objective of this kind: {_KINDS}."
        self._missed = catalogue.counter("objectives_missed_total", text, qos=(), kind=())
        text = "Finished requests that met all their objectives."
        self._attained_all = catalogue.counter("requests_attained_total", text, qos=())
        text = "Finished requests that missed at least one of their objectives."
        self._missed_any = catalogue.counter("requests_missed_total", text, qos=())

    def _make_counts(self, catalogue: Catalogue, names: Sequence[str]) -> None:
        text = "Requests that stepped aside for others: too late to get a first token in time."
        self._relegated = catalogue.counter("relegated_requests_total", text, qos=names)
        text = (
            "Requests that were refused with HTTP 429, with the setting shed: too late to get a "
            "first token in time."
        )
        self._shed = catalogue.counter("shed_requests_total", text, qos=names)
        text = (
            "Steps that admitted no waiting request though fewer than max_num_seqs ran, by class "
            f"of the first that waits and by reason: {BLOCKED_BY}."
        )
        name, reasons = "admission_blocked_steps_total", [reason.value for reason in _BLOCKING]
        self._blocked = catalogue.counter(name, text, qos=names, reason=reasons)
        text = (
            "Tokens that came after a longer gap than a strict objective for gaps allows; one that "
            "auto derives counts while no request has another objective."
        )
        self._late_tokens = catalogue.counter("late_tokens_total", text)

    def _make_times(self, catalogue: Catalogue, objectives: Sequence[RequestObjectives]) -> None:
        text = (
            "Time from a request's arrival until the first step that runs some of it. Bucket "
            "boundaries include the TTFT objectives of settings and classes."
        )
        ttfts_s = {asked.ttft_s for asked in objectives if asked.ttft_s is not None}
        buckets = (*_WAITING_S, *ttfts_s)
        self._waiting = catalogue.histogram("waiting_seconds", text, buckets, "qos")
        text = (
            "TTFT, TPOT and end-to-end latency (kind: ttft, tpot, e2e) of finished requests that "
            "had such an objective. Bucket boundaries include those of settings and classes."
        )
        times_s = {limit_s for asked in objectives for limit_s in asked.by_kind_s.values()}
        buckets = (*_LATENCY_S, *times_s)
        self._latency = catalogue.histogram("latency_seconds", text, buckets, "qos", "kind")
        text = "Time left until its deadline when a first token came; negative where it was late."
        self._slack = catalogue.histogram("deadline_slack_seconds", text, _SLACK_S, "qos")
        text = (
            "Share of its tokens' deadlines that a finished request met: early tokens earn slack, "
            "a stall misses every deadline that it spans (Etalon, arXiv 2407.07000)."
        )
        self._fluidity = catalogue.histogram("fluidity_ratio", text, _SHARE, "qos")

    def _begin(self, asked: RequestObjectives) -> None:
        """Let the counters of a class begin at 0, so that a share can be taken of them."""
        for kind in asked.by_kind_s:
            self._attained(asked.qos, kind)
            self._missed(asked.qos, kind)
        if asked.by_kind_s:
            self._attained_all(asked.qos)
            self._missed_any(asked.qos)

    def follow(self, objectives: RequestObjectives, arrival_s: float) -> AnswerRecord:
        """A listener to the tokens of a request that arrived then, on the tokens' clock."""
        return AnswerRecord(self, objectives, arrival_s)

    def waited(self, objectives: RequestObjectives, waiting_s: float) -> None:
        """Count a request that runs for the first time."""
        self._waiting(objectives.qos).observe(max(waiting_s, 0.0))

    def blocked(self, objectives: RequestObjectives, by: BatchLimit) -> None:
        """Count a step that admits nobody.

        Args:
            objectives: those of the first request that waits.
            by: why it is not admitted.
        """
        self._blocked(objectives.qos, by.value).inc()

    def relegated(self, objectives: RequestObjectives) -> None:
        """Count a request that steps aside."""
        self._relegated(objectives.qos).inc()

    def shed(self, objectives: RequestObjectives) -> None:
        """Count a request that is refused instead."""
        self._shed(objectives.qos).inc()

    def late_tokens(self, num_tokens: int) -> None:
        """Count tokens that came after a longer gap than a strict objective allows."""
        self._late_tokens().inc(num_tokens)

    def began(self, objectives: RequestObjectives, slack_s: float) -> None:
        """Count a first token.

        Args:
            objectives: its request's.
            slack_s: time until it was due; infinite where it was not.
        """
        if slack_s < inf:
            self._slack(objectives.qos).observe(slack_s)

    def ended(
        self,
        objectives: RequestObjectives,
        met: dict[str, bool],
        took_s: dict[str, float],
        fluidity: float | None,
    ) -> None:
        """Count a finished request.

        Args:
            objectives: what it asked.
            met: for each kind of objective that it had, whether it was met.
            took_s: the latencies that were measured of those kinds, in seconds.
            fluidity: share of its tokens' deadlines that were met, if they had any.
        """
        qos = objectives.qos
        if met:
            self._begin(objectives)
            (self._attained_all if all(met.values()) else self._missed_any)(qos).inc()
        for kind, is_met in met.items():
            (self._attained if is_met else self._missed)(qos, kind).inc()
        for kind, time_s in took_s.items():
            self._latency(qos, kind).observe(time_s)
        if fluidity is not None:
            self._fluidity(qos).observe(fluidity)
