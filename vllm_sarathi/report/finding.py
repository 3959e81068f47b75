"""What a reader should know."""

from dataclasses import dataclass
from enum import IntEnum

NOTABLE_SHARE = 0.1
"""Share of time or steps from which something is worth a line."""

MORE_KV = ("--gpu-memory-utilization (higher)", "--kv-cache-dtype fp8")
"""What gives the KV cache more room."""
FEWER_SEQS = "--max-num-seqs (lower)"


class Severity(IntEnum):
    """How much a finding matters."""

    BAD = 0
    LIMIT = 1
    GOOD = 2
    NOTE = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reader should know.

    Attributes:
        severity: how much it matters.
        title: what is so, in a sentence.
        evidence: figures of the log.
        action: what to do about it; empty for nothing.
        flags: what to set, as flags of ``vllm serve``.
    """

    severity: Severity
    title: str
    evidence: str
    action: str = ""
    flags: tuple[str, ...] = ()
