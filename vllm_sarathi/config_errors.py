"""What errors about settings say: the setting, the value and what is allowed."""

import reprlib
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from itertools import groupby
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from vllm_sarathi.qos_classes import QosClass

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_COLLECTIONS = ("qos_classes", "client_objectives", "min_client_slo_ms")
_ALLOWED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "string_too_short": "a string that is not empty",
    "string_pattern_mismatch": "lower-case letters, digits, - and _, 32 characters at most",
    "too_long": "a mapping of {max_length} entries at most",
}

_LIKENESS = 0.65
"""Of names with this much in common one may be meant by the other."""


def describe(error: ValidationError, settings: type[BaseModel]) -> str:
    """One part for each setting at fault.

    Args:
        error: what pydantic found, for a union each of its types in a row.
        settings: the model.
    """
    faults = error.errors()
    if not faults[0]["loc"]:  # a rule of ours, which says all; it is asked last
        return f"sarathi setting: {faults[0]['ctx']['error']}"
    by_setting = groupby(faults, _path)
    return "; ".join(_refusal(path, list(of), settings) for path, of in by_setting)


def _path(fault: "ErrorDetails") -> tuple[str, ...]:
    """Where a value stands: the setting, and within collections what is in it."""
    path = tuple(map(str, fault["loc"]))
    # Other settings may be one of several types, which pydantic adds to the path.
    return path if path[0] in _COLLECTIONS else path[:1]


def _refusal(
    path: tuple[str, ...], faults: Sequence["ErrorDetails"], settings: type[BaseModel]
) -> str:
    *within, name = path
    if faults[0]["type"] == "extra_forbidden":
        return unknown(name, QosClass.model_fields, f"setting {'.'.join(within)}:")
    allowed = [_allowed(fault) for fault in faults]
    given = shown(faults[0]["input"])
    if name == "[key]":
        return f"sarathi setting {within[0]}: name {given} should be {', or '.join(allowed)}"
    nullable = {1: settings.model_fields, 3: QosClass.model_fields}.get(len(path), {})
    if name in nullable and NoneType in get_args(nullable[name].annotation):
        allowed.append("null")
    return f"sarathi setting {'.'.join(path)}={given}: should be {', or '.join(allowed)}"


def _allowed(fault: "ErrorDetails") -> str:
    if template := _ALLOWED.get(fault["type"]):
        return template.format(**fault.get("ctx", {}))
    return fault["msg"].removeprefix("Input should be ")


def unknown(name: object, known: Collection[str], what: str = "setting", allowed: str = "") -> str:
    """That a name is unknown, which was probably meant, and which are allowed.

    Args:
        name: what was given.
        known: all names.
        what: what they are names of.
        allowed: which of them are allowed; "" for all.
    """
    meant = closest(name, known)
    hint = f"did you mean {meant!r}? " if meant else ""
    allowed = allowed or f"allowed are {', '.join(known)}"
    return f"sarathi {what} {shown(name)} is unknown; {hint}{allowed}"


def closest(name: object, known: Iterable[str]) -> str | None:
    """The name that was probably meant, if any comes close."""
    names = {each.lower(): each for each in known}
    given = str(name).lower().replace("-", "_").replace("itl", "tbt")  # as vLLM calls it
    whole = [each for each in names if len(given) > 2 and given in each]
    found = whole or get_close_matches(given, names, n=1, cutoff=_LIKENESS)
    return names[found[0]] if found else None


def shown(value: Any) -> str:
    """A value for a message: short whatever was given."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer with too many digits to print
        return f"<{type(value).__name__}>"
