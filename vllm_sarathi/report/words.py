"""Numbers as people read them."""


def duration(seconds: float | None) -> str:
    """A time, three digits of it."""
    if seconds is None:
        return "an unknown time"
    if seconds < 0.9995:
        milliseconds = seconds * 1e3
        return f"{milliseconds:.0f} ms" if milliseconds >= 99.5 else f"{milliseconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    return clock(seconds)


def clock(seconds: float) -> str:
    """A point of time, or a long time: ``1:05 min``, ``2:10 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:g} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def plural(count: int, noun: str, ending: str = "s") -> str:
    """So many of them."""
    return f"{count:,} {noun}" + ("" if count == 1 else ending)


def share(value: float) -> str:
    """A share, small ones with a digit more."""
    if 0 < value < 0.001:
        return "<0.1%"
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
