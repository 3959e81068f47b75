"""Prompts in levels: the shorter its prefill, the higher a request's level."""

from dataclasses import dataclass
from math import ceil, log2

from vllm_sarathi.policy.order import WaitingOrder
from vllm_sarathi.policy.place import Place


@dataclass(slots=True)
class LevelOrder(WaitingOrder):
    """A skip-join multi-level queue (FastServe, arXiv 2305.05920).

    A request joins at the level of its predicted prefill time and rises while that gets shorter.
    Levels are a factor of two apart; within one, first come, first served, so that few wait much
    longer than others of their size. One that has waited for ``prefill_weight`` times the bound
    of its level goes before all that come now, whatever their level.

    Unlike the paper, decodes are not demoted. There a batch holds few requests, and one that
    pauses makes room. Here all decodes share a step, and one that pauses makes it hardly shorter:
    with such pauses the mean job-completion time is longer (benchmarks/results/job_completion.md).
    """

    def _postponed_s(self, place: Place) -> float:
        prefill_s = self.token_s * place.num_tokens
        return self.prefill_weight * 2.0 ** ceil(log2(prefill_s)) if prefill_s else 0.0
