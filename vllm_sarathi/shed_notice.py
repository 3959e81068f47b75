"""What the engine core says of a request that it shed, in vLLM's ``stop_reason``.

That field reaches the process that serves clients, and whoever runs offline.
"""

import re

REASON = "rejected-ttl-expired"
"""llm-d's word for a request whose time ran out while it was queued."""

_NOTICE = re.compile(re.escape(REASON) + r", retry after (\d+) s")


def notice(retry_after_s: int) -> str:
    """The ``stop_reason`` of a shed request, with the seconds after which to try again."""
    return f"{REASON}, retry after {retry_after_s} s"


def retry_after_s(stop_reason: int | str | None) -> int | None:
    """Seconds after which to try again; None of a request that was not shed."""
    found = _NOTICE.fullmatch(stop_reason) if isinstance(stop_reason, str) else None
    return int(found[1]) if found else None
