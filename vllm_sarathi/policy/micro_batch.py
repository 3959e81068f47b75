"""Even micro-batches over pipeline stages.

A pipeline runs as many batches at once as it has stages, and a request is in one
of them at a time. If one batch takes all decodes, or all prefill, the others have
little, and stages idle in turn (SARATHI, arXiv 2308.16369, section 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vllm_sarathi.policy.state import Decodes
from vllm_sarathi.policy.step import StepView

_DELAYED_WEIGHT = 0.25
"""What the delay of one request weighs against that of all prefill. Chosen with the next one
on the twelve cells of benchmarks/results/pipeline.md: the least of their losses is largest."""

_CHANGE_WEIGHT = 0.9
"""What a change of a micro-batch's length costs, in its own length."""


@dataclass(slots=True)
class Cohorts:
    """Splits decodes into cohorts, one for each micro-batch.

    Those that one micro-batch leaves out come first in the next.

    Attributes:
        num_stages: pipeline stages.
    """

    num_stages: int
    _postponed: tuple[Any, ...] = ()

    def choose(self, decodes: Decodes, num_decodes: int) -> tuple[Decodes, tuple[Any, ...]]:
        """The decodes of the next micro-batch, and the requests of those postponed.

        Args:
            decodes: decodes that may run now.
            num_decodes: all decodes, those in flight included.
        """
        requests = decodes.requests
        share = decode_share(len(requests), num_decodes, self.num_stages)
        ranks = {request: rank for rank, request in enumerate(self._postponed)}
        order = sorted(
            range(len(requests)), key=lambda place: ranks.get(requests[place], len(ranks))
        )
        self._postponed = tuple(requests[place] for place in order[share:])
        return decodes.at(order[:share]), self._postponed

    def skip(self) -> None:
        """Note a batch that took all decodes."""
        self._postponed = ()


def decode_share(num_ready: int, num_decodes: int, num_stages: int) -> int:
    """How many decodes the next micro-batch takes.

    Args:
        num_ready: decodes that could run now.
        num_decodes: all decodes, those in flight included.
        num_stages: pipeline stages.
    """
    return min(num_ready, -(-num_decodes // num_stages))


def pipeline_cost_s(view: StepView, step_s: float, num_stages: int) -> float:
    """What a micro-batch of this length costs the pipeline, in seconds.

    It passes every stage. Where others are as long, that is the time in which the
    pipeline fills and drains, once; prefill in k micro-batches is done after
    (k + stages - 1) x time. Where others are shorter they wait for it at every stage,
    where others are longer it waits: both are bubbles, which a change of length costs
    until the pipeline has gone round. All requests in the micro-batch bear it, those
    to be admitted soon as well.

    Unlike the paper (SARATHI, section 4.3), which keeps one chunk size found by
    profiling: here a lone prompt is cut so that it fills the pipeline, and a steady
    stream of prompts settles at chunks as long as the stream needs, with little change.

    Args:
        view: the requests, and the time of the micro-batches in flight.
        step_s: predicted time of the micro-batch on a stage, in seconds.
        num_stages: pipeline stages, and so batches in the pipeline.
    """
    period_s = view.outlook.period_s
    change_s = abs(step_s - period_s) if period_s else 0.0
    num_new = view.backlog.num_soon
    num_delayed = view.num_decodes + (len(view.prefills) + num_new) / num_stages
    weight = 1 + _DELAYED_WEIGHT * num_delayed
    return (num_stages - 1) * weight * (step_s + _CHANGE_WEIGHT * change_s)


class Evenness(NamedTuple):
    """How even the micro-batches in a pipeline are.

    Attributes:
        imbalance: longest over mean time of a micro-batch; 1 is even.
        idle_share: share of stage time that unevenness and empty places leave idle.
    """

    imbalance: float
    idle_share: float


def evenness(times_s: Sequence[float], num_stages: int) -> Evenness | None:
    """How even micro-batches are that are in flight together.

    The longest sets the pace: each stage works while it has one of the others, and
    waits for the longest.

    Args:
        times_s: predicted time of each on a stage, in seconds.
        num_stages: pipeline stages.

    Returns:
        None where nothing is known of their times.
    """
    shown = times_s[:num_stages]
    longest_s = max(shown, default=0.0)
    if longest_s <= 0:
        return None
    busy_s = sum(shown)
    return Evenness(longest_s * len(shown) / busy_s, 1 - busy_s / (longest_s * num_stages))
