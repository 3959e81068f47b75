"""Figures as short texts. What is unknown is a dash, never 0."""

from math import isfinite

UNKNOWN = "-"


def numbers(*values: float | None, by: str = "/") -> str:
    """Numbers of three digits or whole; one dash if all are unknown."""
    texts = [UNKNOWN if value is None else _number(value) for value in values]
    return UNKNOWN if set(texts) <= {UNKNOWN} else by.join(texts)


def percent(share: float | None) -> str:
    """A share in percent."""
    return UNKNOWN if share is None or not isfinite(share) else f"{share:.0%}"


def _number(value: float) -> str:
    if not isfinite(value):
        return UNKNOWN
    return f"{value:.3g}" if abs(value) < 99.95 else f"{value:.0f}"
