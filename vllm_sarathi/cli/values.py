"""Values on the command line: what argparse takes for a ``type``."""

import argparse
from collections.abc import Callable

GOODPUT_KEYS = ("ttft", "tpot", "e2el")
"""The keys of ``vllm bench serve --goodput``."""


def _number(text: str, allowed: str, is_allowed: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not is_allowed(value):
        raise argparse.ArgumentTypeError(f"{text!r} must be {allowed}")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    return _number(text, "a number above 0", _is_positive)


def _is_positive(value: float) -> bool:
    return 0 < value < float("inf")


def share(text: str) -> float:
    """A share above 0, at most 1."""
    return _number(text, "a share above 0, at most 1", lambda value: 0 < value <= 1)


def objective(text: str) -> tuple[str, float]:
    """An objective as ``vllm bench serve --goodput`` spells it: its key and milliseconds."""
    key, _, value = text.partition(":")
    if key not in GOODPUT_KEYS:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be KEY:MILLISECONDS with the key {', '.join(GOODPUT_KEYS)}; engines go "
            "before --goodput, or behind another option"
        )
    return key, _number(value, f"{key}:MILLISECONDS, a number above 0", _is_positive)


def noise(text: str) -> float:
    """A share from 0 to 1."""
    return _number(text, "a share from 0 to 1", lambda value: 0 <= value <= 1)


def whole(text: str, least: int = 1) -> int:
    """A whole number."""
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, {least} or more")
    return int(text)


def seed(text: str) -> int:
    """A whole number, 0 or more."""
    return whole(text, 0)


def rates(text: str) -> tuple[float, ...]:
    """Numbers above 0 with commas between them, each once, rising."""
    return tuple(sorted({positive(part) for part in text.split(",")}))


def tokens(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(whole(part) for part in text.split(","))
