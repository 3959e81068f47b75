"""Engines as one word on a command line: ``stock:512``, ``sarathi:2048,tbt_slo_ms=50``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vllm_sarathi.latency import Objectives
from vllm_sarathi.qos_classes import NEVER_LONGER
from vllm_sarathi.simulator.engine.settings import WORD_KEYS, EngineSettings

_SWITCH = {"true": True, "false": False}
_CHOICES: dict[str, dict[str, Any]] = {
    "async_scheduling": _SWITCH,
    "policy": {"fcfs": "fcfs", "priority": "priority"},
    "enable_prefix_caching": _SWITCH,
}
# Settings that choose how batches are sized, and those for the pace of tokens.
_BY_HAND = {"preset", "token_budget", "chunk_size"}
_PACES = {"tbt_slo_ms", "tpot_slo_ms"}
_ENGINE_KEYS = (*WORD_KEYS, "label")
FORM = "NAME[:BUDGET][,KEY=VALUE...]"


def parse_engine(text: str, defaults: Mapping[str, Any]) -> EngineSettings:
    """Read an engine from a word.

    NAME is "stock", "sarathi" or a dotted path to a class; BUDGET is vLLM's
    ``max_num_batched_tokens``; a KEY is one of the engine's (``max_num_seqs``,
    ``async_scheduling``, ``policy``, ``enable_prefix_caching``, ``label``) or a setting
    of ours.

    Args:
        text: the word.
        defaults: fields of ``EngineSettings`` that it does not name.

    Raises:
        ValueError: names the word, and what is wrong with it.
    """
    head, *pairs = text.split(",")
    name, _, budget = head.partition(":")
    if not name:
        raise ValueError(f"engine {text!r} has no name; it must be {FORM}")
    fields: dict[str, Any] = {**defaults, "scheduler": name}
    if budget:
        if not _is_whole(budget):
            raise ValueError(f"engine {text!r}: budget {budget!r} must be 1 token or more")
        fields["max_num_batched_tokens"] = int(budget)
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"engine {text!r}: {pair!r} must be KEY=VALUE")
        if key in _ENGINE_KEYS:
            fields[key] = _engine_value(text, key, value)
        elif name == "stock":
            raise ValueError(
                f"engine {text!r}: {key!r} is not one of {', '.join(_ENGINE_KEYS)}; other "
                "settings go with 'sarathi'"
            )
        else:
            settings[key] = _value(value)
    try:
        return EngineSettings(**fields, sarathi=settings)
    except ValueError as error:
        raise ValueError(f"engine {text!r}: {error}") from None


def with_objectives(engine: EngineSettings, asked: Objectives) -> EngineSettings:
    """Tell our scheduler all that it is measured by, beside the objectives of its own.

    A preset or a budget given by hand is left alone: those follow no objective. An engine with a
    pace of its own is told no other, and order=mlfq none. What another objective bounds already
    is not told: our scheduler refuses it.
    """
    own = engine.sarathi
    if engine.scheduler != "sarathi" or not _BY_HAND.isdisjoint(own):
        return engine
    told = {f"{kind}_slo_ms": limit_s * 1e3 for kind, limit_s in asked.by_kind_s.items()}
    if not _PACES.isdisjoint(own) or own.get("order") == "mlfq":
        told = {name: limit_ms for name, limit_ms in told.items() if name not in _PACES}
    for part, whole in NEVER_LONGER:
        settings = {**told, **own}
        part_ms, whole_ms = settings.get(part), settings.get(whole)
        if not (isinstance(part_ms, int | float) and isinstance(whole_ms, int | float)):
            continue
        if part_ms > whole_ms:
            told.pop(whole if part in own else part, None)
    if told.keys() <= own.keys():
        return engine
    return replace(engine, sarathi={**told, **own}, label=engine.label or engine.name)


def _engine_value(engine: str, key: str, text: str) -> Any:
    if key == "label":
        return text
    choices = _CHOICES.get(key, {})
    if text in choices:
        return choices[text]
    if choices or not _is_whole(text):
        wanted = " or ".join(choices) or "1 or more"
        raise ValueError(f"engine {engine!r}: {key}={text!r} must be {wanted}")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
