"""What kept the engine from doing more while requests waited."""

from collections.abc import Iterator

from vllm_sarathi.report.finding import (
    FEWER_SEQS,
    MORE_KV,
    NOTABLE_SHARE,
    Finding,
    Severity,
)
from vllm_sarathi.report.summary import Summary
from vllm_sarathi.report.words import plural, share

_FULL_CACHE = 0.97

_SAID = {
    "objective": (
        "The objective for gaps limited the prefill in a batch.",
        "That is what it is for: a looser one serves prompts faster, and lengthens gaps.",
        (),
    ),
    "tile": (
        "Whole tiles limited batches: more tokens would have cost more time than they are worth.",
        "Nothing is to be set: this is the batch that does most work per second.",
        (),
    ),
    "micro_batch": (
        "Even micro-batches limited chunks: longer ones would leave bubbles in the pipeline.",
        "Nothing is to be set.",
        (),
    ),
    "pace": (
        "The pace of those that run limited admission: one more would have made them late.",
        "A looser TPOT lets more run; more replicas do too.",
        ("--sarathi-tpot-slo-ms (higher)",),
    ),
    "kv_blocks": (
        "KV blocks limited admission: those that are free are kept for running requests.",
        "Give the KV cache more room.",
        MORE_KV,
    ),
    "token_budget": (
        "The fixed token budget limited batches.",
        'The preset "slo" sizes each batch by the objective instead.',
        ("--sarathi-preset slo",),
    ),
    "chunk_size": (
        "The fixed chunk size limited batches.",
        'The preset "slo" sizes each batch by the objective instead.',
        ("--sarathi-preset slo",),
    ),
}
_Told = tuple[str, str, tuple[str, ...]]


def queue(summary: Summary) -> Iterator[Finding]:
    """What was the limit while requests waited."""
    bins = summary.bins
    busy_s = max(bins.total("busy_s"), 1e-9)
    known = {"maximum": _by_maximum(summary), "no_more_prefill": _by_max_num_seqs(summary)} | _SAID
    if summary.settings.get("preset") == "observe" and not known["no_more_prefill"][2]:
        del known["no_more_prefill"]  # vLLM does not tell what bound its batches
    queued = {limit: bins.total(f"queued {limit}") / busy_s for limit in known}
    for limit, part in sorted(queued.items(), key=lambda item: -item[1]):
        if part > NOTABLE_SHARE:
            title, action, flags = known[limit]
            evidence = f"For {share(part)} of the time requests waited and this was the limit."
            severity = Severity.LIMIT if flags else Severity.NOTE
            yield Finding(severity, title, evidence, action, flags)


def _by_maximum(summary: Summary) -> _Told:
    most = summary.begin.max_num_batched_tokens
    return (
        "vLLM's max_num_batched_tokens limited batches.",
        "It may be larger where the preset follows an objective.",
        (f"--max-num-batched-tokens {2 * most}",) if most else (),
    )


def _by_max_num_seqs(summary: Summary) -> _Told:
    most = summary.begin.max_num_seqs
    if most is not None and summary.bins.most("most_running").max(initial=0.0) >= most:
        title = "Requests waited although batches had room: max_num_seqs was reached."
        return title, "Let more run at a time.", (f"--max-num-seqs {2 * most}",)
    title = "Requests waited although batches had room."
    return title, "vLLM held them back: adapters, grammars or KV transfers may do so.", ()


def preemptions(summary: Summary) -> Iterator[Finding]:
    """Requests that lost their KV blocks."""
    preempted = summary.bins.total("preempted")
    usage = summary.bins.most("most_kv").max(initial=0.0)
    if preempted:
        yield Finding(
            Severity.LIMIT,
            f"{plural(int(preempted), 'request')} had to be preempted and prefilled again.",
            f"Up to {share(usage)} of the KV cache was in use.",
            "Give the KV cache more room, or run fewer requests.",
            (*MORE_KV, FEWER_SEQS),
        )
    elif usage >= _FULL_CACHE:
        text = f"Up to {share(usage)} of it was in use; nobody was preempted."
        yield Finding(Severity.NOTE, "The KV cache was full at times.", text)
