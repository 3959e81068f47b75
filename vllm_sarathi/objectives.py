"""What one request asks of its latency, read from what its client said.

A request's own fields come first, then its class, then the server-wide settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from vllm_sarathi.config import CLIENT_FIELDS, SLO_FIELDS, SarathiConfig
from vllm_sarathi.config_errors import shown
from vllm_sarathi.latency import Objectives
from vllm_sarathi.qos_classes import (
    DEFAULT_CLASS,
    MAX_IMPORTANCE,
    MAX_MS,
    MIN_CLIENT_MS,
    MIN_IMPORTANCE,
    READY_CLASSES,
)

STALL_PER_TPOT = 10.0
_MAX_NAME_LENGTH = 64
_LIKE_A_FIELD = re.compile(
    r"(^|[^a-z0-9])(slos?|qos|ttft|tpot|tbt)([^a-z0-9]|$)|^importan", re.IGNORECASE
)


class ObjectiveError(ValueError):
    """A request asks for what is not allowed.

    Attributes:
        field: name of the field.
        value: what the client gave, shortened.
    """

    def __init__(self, field: str, value: str, allowed: str) -> None:
        super().__init__(f"objective {field}={value}: {allowed}")
        self.field = field
        self.value = value


@dataclass(frozen=True, slots=True)
class RequestObjectives(Objectives):
    """Objectives of one request, resolved.

    Args:
        max_stall_s: longest single gap of a request that is ahead of its pace, in
            seconds; None where no pace is set.
        importance: higher matters more; 0 unless its class or the request says otherwise.
        qos: name of its class, one of a bounded set.
        auto_tbt: the objective for gaps is the one that the scheduler learns, because
            nobody stated any for the tokens after the first.
    """

    max_stall_s: float | None = None
    importance: int = 0
    qos: str = DEFAULT_CLASS
    auto_tbt: bool = False


class ObjectivesReader:
    """Reads requests' objectives under one set of settings. Build it once.

    Attributes:
        default: objectives of a request that says nothing.
        classes: names of the classes that a request may name.
        of_classes: objectives of requests that name a class and nothing else, the default first.
        is_auto: whether gaps of a request that has nothing to keep follow decode-only steps.
    """

    def __init__(self, settings: SarathiConfig) -> None:
        self.is_auto = settings.gap_slo_ms == "auto"
        self._max_stall_ms = settings.max_stall_ms
        self._allowed = frozenset(settings.client_objectives)
        self._floor_ms = {str(name): ms for name, ms in settings.min_client_slo_ms.items()}
        server_wide = {name: getattr(settings, name) for name in SLO_FIELDS}
        server_wide |= {"tbt_slo_ms": settings.gap_slo_ms, "importance": 0}
        self._of_class = {
            name: server_wide | qos.model_dump(exclude_unset=True)
            for name, qos in (READY_CLASSES | settings.qos_classes).items()
        }
        self._resolved = {name: self._resolve(name, {}) for name in self._of_class}
        self.classes = tuple(self._of_class)
        self.default = self._resolved[DEFAULT_CLASS]
        self.of_classes = tuple(self._resolved.values())

    def read(self, extra_args: Mapping[str, Any] | None) -> RequestObjectives:
        """Objectives of a request, or an error that its client understands.

        Args:
            extra_args: ``SamplingParams.extra_args``; names that are none of ours are
                left alone, unless they look like a misspelt one.

        Raises:
            ObjectiveError: names the field, the value and what is allowed.
        """
        for name, value in (extra_args or {}).items():
            if name not in CLIENT_FIELDS and _looks_like_a_field(name):
                raise ObjectiveError(name, shown(value), f"known are {', '.join(CLIENT_FIELDS)}")
        return self._read_known(extra_args)

    def read_or_default(self, extra_args: Mapping[str, Any] | None) -> RequestObjectives:
        """Objectives of a request that reached the engine core; never raises.

        Whatever cannot be read leaves the request with the objectives of one that
        says nothing.
        """
        try:
            return self._read_known(extra_args)
        except Exception:  # whatever a front end let through must not stop the engine
            return self.default

    def _read_known(self, extra_args: Mapping[str, Any] | None) -> RequestObjectives:
        if not extra_args:
            return self.default
        given = {name: extra_args[name] for name in CLIENT_FIELDS if name in extra_args}
        if not given:
            return self.default
        for name, value in given.items():
            if name not in self._allowed:
                raise ObjectiveError(
                    name,
                    shown(value),
                    "the server's setting client_objectives allows requests to set "
                    f"{', '.join(sorted(self._allowed)) or 'nothing'}",
                )
        qos = given.pop("qos", DEFAULT_CLASS)
        if not isinstance(qos, str) or qos not in self._of_class:
            raise ObjectiveError("qos", shown(qos), f"allowed are {', '.join(self.classes)}")
        for name, value in given.items():
            if name == "importance":
                _check_importance(value)
            else:
                self._check_ms(name, value)
        return self._resolve(qos, given) if given else self._resolved[qos]

    def _check_ms(self, name: str, value: Any) -> None:
        floor = self._floor_ms.get(name)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not MIN_CLIENT_MS < value <= MAX_MS
            or (floor is not None and value < floor)
        ):
            least = f"above {MIN_CLIENT_MS:g}" if floor is None else f"of at least {floor:g}"
            raise ObjectiveError(
                name, shown(value), f"allowed is a number {least} and at most {MAX_MS:.0f} (ms)"
            )

    def _resolve(self, qos: str, given: dict[str, Any]) -> RequestObjectives:
        asked = self._of_class[qos] | given
        ttft_ms, tpot_ms, tbt_ms, e2e_ms = (asked[name] for name in SLO_FIELDS)
        is_auto = tbt_ms == "auto"
        tbt_ms = None if is_auto else tbt_ms
        return RequestObjectives(
            ttft_s=_seconds(ttft_ms),
            tpot_s=_seconds(tpot_ms),
            tbt_s=_seconds(tbt_ms),
            e2e_s=_seconds(e2e_ms),
            max_stall_s=_seconds(self._stall_ms(tpot_ms, tbt_ms)),
            importance=asked["importance"],
            qos=qos,
            auto_tbt=is_auto and tpot_ms is None and e2e_ms is None,
        )

    def _stall_ms(self, tpot_ms: float | None, tbt_ms: float | None) -> float | None:
        """Longest gap; a bound below the pace itself would contradict it."""
        pace_ms = tpot_ms or tbt_ms
        if pace_ms is None:
            return None
        if self._max_stall_ms is not None:
            return max(self._max_stall_ms, pace_ms)
        if tpot_ms is None:
            return None
        return min(STALL_PER_TPOT * tpot_ms, inf if tbt_ms is None else tbt_ms)


def _check_importance(value: Any) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not MIN_IMPORTANCE <= value <= MAX_IMPORTANCE:
        raise ObjectiveError(
            "importance",
            shown(value),
            f"allowed is a whole number from {MIN_IMPORTANCE} to {MAX_IMPORTANCE}",
        )


def _looks_like_a_field(name: Any) -> bool:
    return (
        isinstance(name, str)
        and len(name) <= _MAX_NAME_LENGTH
        and _LIKE_A_FIELD.search(name) is not None
    )


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1e3
