"""The settings, validated once at start-up.

Longer than other files, so that every rule on a setting stands beside it.
"""

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vllm_sarathi.config_errors import describe, unknown
from vllm_sarathi.qos_classes import (
    MAX_CLASSES,
    ClassName,
    ClientMs,
    PositiveMs,
    QosClass,
    refuse_out_of_order,
)

PositiveTokens = Annotated[int, Field(ge=1)]
SloField = Literal["ttft_slo_ms", "tpot_slo_ms", "tbt_slo_ms", "e2e_slo_ms"]
Order = Literal["fcfs", "edf", "srpf", "hybrid", "prefix", "mlfq"]
ClientField = Literal["qos", SloField, "importance"]

SETTINGS_KEY = "sarathi"
SLO_FIELDS: tuple[str, ...] = get_args(SloField)
CLIENT_FIELDS: tuple[str, ...] = ("qos", *SLO_FIELDS, "importance")

DEFAULT_TILE_SIZE = 128

_BATCH_SETTINGS = {"decode-maximal": "chunk_size", "stall-free": "token_budget"}
_BATCH_TOKENS = {"chunk_size": 256, "token_budget": 512}
"""The defaults of these."""

_ORDERS: dict[str, Order] = {"slo": "hybrid", "offline": "prefix"}
"""The order of a preset; those without one leave it to vLLM."""

_GOES_WITH = {
    "chunk_size": ("decode-maximal",),
    "token_budget": ("stall-free",),
    "tbt_slo_ms": ("slo", "observe"),
    "max_stall_ms": ("slo", "observe"),
    "order": ("slo", "stall-free", "offline"),
    "shed": ("slo", "stall-free"),
    "tile_size": ("slo", "stall-free", "decode-maximal"),
    "max_prefills_per_batch": ("slo", "stall-free", "decode-maximal"),
    "balance_micro_batches": ("slo", "stall-free", "decode-maximal", "offline"),
}


class SarathiConfig(BaseModel):
    """Settings of the scheduler, as they stand in ``additional_config["sarathi"]``.

    Each field's description says what it means; ``vllm serve --help=Sarathi``
    prints them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    preset: Literal["decode-maximal", "stall-free", "slo", "offline", "observe"] = Field(
        "slo",
        description='"slo", "stall-free" (Sarathi-Serve), "decode-maximal" (SARATHI), "offline" '
        '(BatchLLM): throughput alone, or "observe": vLLM decides, we measure and predict.',
    )
    chunk_size: PositiveTokens | None = Field(
        None, description='Prefill tokens of a batch under "decode-maximal".'
    )
    token_budget: PositiveTokens | None = Field(
        None, description='Tokens of a batch, decodes included, under "stall-free".'
    )
    tile_size: PositiveTokens | Literal["auto"] | None = Field(
        "auto",
        description='A batch with prefill is a multiple of this. "auto" learns tiles under "slo" '
        'and is 128, or a smaller chunk_size, under "decode-maximal"; null: no rounding.',
    )
    max_prefills_per_batch: PositiveTokens | None = Field(
        None, description="Most prefill chunks in one batch; null for no limit."
    )
    tbt_slo_ms: PositiveMs | Literal["auto"] | None = Field(
        "auto",
        description='Objective for the time between two tokens of a request, under "slo" and '
        '"observe". "auto" is 5 decode-only steps; null aims at throughput alone.',
    )
    max_stall_ms: PositiveMs | None = Field(
        None,
        description="Longest gap between tokens of requests that are ahead of their pace; null: "
        "10 times tpot_slo_ms, at most tbt_slo_ms.",
    )
    ttft_slo_ms: PositiveMs | None = Field(
        None,
        description="Objective for the first token. Who can no longer meet it steps aside.",
    )
    tpot_slo_ms: PositiveMs | None = Field(
        None,
        description="Objective for the mean time per output token after the first: early tokens "
        "earn slack for later ones.",
    )
    e2e_slo_ms: PositiveMs | None = Field(None, description="Objective for the last token.")
    qos_classes: dict[ClassName, QosClass] = Field(
        {},
        max_length=MAX_CLASSES,
        description="Classes that requests may name as qos, each with ttft_slo_ms, tpot_slo_ms, "
        'tbt_slo_ms, e2e_slo_ms and importance; "interactive" and "batch" are ready.',
    )
    client_objectives: list[ClientField] = Field(
        ["qos", "ttft_slo_ms", "tpot_slo_ms", "tbt_slo_ms", "e2e_slo_ms"],
        description="What requests may set: qos, ttft_slo_ms, tpot_slo_ms, tbt_slo_ms, "
        "e2e_slo_ms, importance (this one not unless listed).",
    )
    min_client_slo_ms: dict[SloField, ClientMs] = Field(
        {}, description="Tightest ttft_slo_ms, tpot_slo_ms, ... that a request may set."
    )
    order: Order | None = Field(
        None,
        description="Order in which prompts are served: first come, earliest deadline, shortest "
        "remaining prefill, deadline with long prompts put back further the more requests are "
        'late, "prefix": those that share a prefix together, or "mlfq": levels by prefill time. '
        'null: "hybrid" under "slo", "prefix" under "offline", else "fcfs".',
    )
    shed: bool = Field(
        False,
        description="Refuse a request that can no longer get its first token in time, with HTTP "
        "429 and Retry-After, rather than let it step aside.",
    )
    step_log: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="File that gets a JSON line for each step; with data parallelism each engine "
        "adds its rank: steps.0.jsonl.",
    )
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        description="Port on which each engine serves its own metrics too, plus its data-parallel "
        "rank: for engines on nodes without an API server.",
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="Address of metrics_port.")
    balance_micro_batches: bool | None = Field(
        None, description="Spread decodes evenly over pipeline stages; null: with more than one."
    )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build the settings from a mapping.

        Raises:
            ValueError: names the setting, the value and what is allowed.
        """
        for name in cls.require_mapping(settings):
            if name not in cls.model_fields:
                preset = settings.get("preset", "slo")
                names = ", ".join(each for each in cls.model_fields if goes_with(each, preset))
                allowed = f"allowed with preset={preset!r} are {names}"
                raise ValueError(unknown(name, cls.model_fields, allowed=allowed))
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            raise ValueError(describe(error, cls)) from None

    @classmethod
    def of_engine(cls, vllm_config: Any) -> Self:
        """Build the settings that a finished ``VllmConfig`` carries.

        Raises:
            ValueError: as ``from_mapping``.
        """
        return cls.from_mapping(vllm_config.additional_config.get(SETTINGS_KEY, {}))

    @staticmethod
    def require_mapping(settings: Any) -> Mapping[str, Any]:
        """Return the settings, or raise ``ValueError`` if they are no mapping."""
        if not isinstance(settings, Mapping):
            raise ValueError(f"sarathi settings: {settings!r} is not a mapping of names to values")
        return settings

    @classmethod
    def doc(cls, name: str) -> str:
        """What a setting means."""
        return cls.model_fields[name].description or ""

    @classmethod
    def is_switch(cls, name: str) -> bool:
        """Whether a setting is either on or off."""
        annotation = cls.model_fields[name].annotation
        return annotation is bool or bool in get_args(annotation)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        for name, presets in _GOES_WITH.items():
            value = getattr(self, name)
            is_off = value is None or value is False
            if name in self.model_fields_set and not (is_off or goes_with(name, self.preset)):
                raise ValueError(
                    f"{name}={value!r} has no meaning with preset={self.preset!r}; "
                    f"it goes with {' or '.join(map(repr, presets))}"
                )
        self._check_objectives()
        self._check_max_stall()
        self._check_client_limits()
        self._check_job_completion()
        if self.shed and self.waiting_order == "fcfs":
            raise ValueError(
                f"shed=True has no meaning with order={self.order!r} and preset={self.preset!r}, "
                "which know no deadlines of those that wait; it goes with order='hybrid', 'edf' "
                "or 'srpf'"
            )
        if "metrics_host" in self.model_fields_set and self.metrics_port is None:
            raise ValueError(
                f"metrics_host={self.metrics_host!r} has no meaning with metrics_port=None; set "
                "metrics_port to a number from 1 to 65535"
            )
        if self.preset == "decode-maximal" and (self.max_prefills_per_batch or 1) != 1:
            raise ValueError(
                f"max_prefills_per_batch={self.max_prefills_per_batch} contradicts "
                "preset='decode-maximal', which runs exactly 1 prefill chunk a batch"
            )
        if isinstance(self.tile_size, int) and self.tile_size > self.batch_tokens:
            raise ValueError(
                f"tile_size={self.tile_size} is larger than {self.batch_setting}="
                f"{self.batch_tokens}; at most that is allowed"
            )
        return self

    def _check_objectives(self) -> None:
        refuse_out_of_order({name: getattr(self, name) for name in SLO_FIELDS})
        for name, qos in self.qos_classes.items():
            refuse_out_of_order(qos.model_dump(), f"qos_classes.{name}.")

    def _check_client_limits(self) -> None:
        for name, least in self.min_client_slo_ms.items():
            given = f"min_client_slo_ms.{name}={least}"
            if name not in self.client_objectives:
                raise ValueError(
                    f"{given} has no meaning with client_objectives={self.client_objectives!r}, "
                    f"which lets no request set {name}"
                )
            own = getattr(self, name)
            if isinstance(own, float) and own < least:
                raise ValueError(
                    f"{given} is above {name}={own}, which requests get unasked; at most that "
                    "is allowed"
                )

    def _check_job_completion(self) -> None:
        """Refuse promises on gaps where batches are sized for the mean time of whole requests."""
        if self.order != "mlfq":
            return
        of_classes = {f"qos_classes.{name}.": qos for name, qos in self.qos_classes.items()}
        asked: dict[str, BaseModel] = {"": self, **of_classes}
        for prefix, settings in asked.items():
            for name in ("tbt_slo_ms", "tpot_slo_ms", "max_stall_ms"):
                value = getattr(settings, name) if name in settings.model_fields_set else None
                if value is not None:
                    raise ValueError(
                        f"{prefix}{name}={value!r} contradicts order='mlfq', which sizes batches "
                        "for the mean time of whole requests, however long a gap between two "
                        "tokens gets; it goes with order='hybrid', 'edf', 'srpf' or 'prefix'"
                    )

    def _check_max_stall(self) -> None:
        if self.max_stall_ms is None:
            return
        paces = {"tbt_slo_ms": self.tbt_slo_ms, "tpot_slo_ms": self.tpot_slo_ms}
        numbers = {name: pace for name, pace in paces.items() if isinstance(pace, float)}
        may_be_asked = {"qos", "tpot_slo_ms", "tbt_slo_ms"} & set(self.client_objectives)
        if not (numbers or self.qos_classes or may_be_asked):
            raise ValueError(
                f"max_stall_ms={self.max_stall_ms} has no meaning where no request has a pace; it "
                "goes with a number for tbt_slo_ms or tpot_slo_ms, with qos_classes, or with "
                "client_objectives that let requests set one"
            )
        for name, pace in numbers.items():
            if self.max_stall_ms < pace:
                raise ValueError(
                    f"max_stall_ms={self.max_stall_ms} is below {name}={pace}; "
                    "at least that is allowed"
                )

    @property
    def waiting_order(self) -> Order:
        """The order of waiting requests that ``order`` and the preset come to."""
        return self.order or _ORDERS.get(self.preset, "fcfs")

    @property
    def gap_slo_ms(self) -> float | Literal["auto"] | None:
        """``tbt_slo_ms``, but None where nothing is to follow its default."""
        return None if self.preset == "offline" or self.order == "mlfq" else self.tbt_slo_ms

    @property
    def follows_gaps(self) -> bool:
        """Whether the size of a batch follows objectives for the time between tokens."""
        return self.preset == "slo" and self.order != "mlfq"

    @property
    def batch_setting(self) -> str | None:
        """The setting that sizes a batch with prefill; None where none does."""
        return _BATCH_SETTINGS.get(self.preset)

    @property
    def batch_tokens(self) -> int:
        """What ``batch_setting`` comes to, in tokens; no limit where there is none."""
        name = self.batch_setting
        return sys.maxsize if name is None else getattr(self, name) or _BATCH_TOKENS[name]

    @property
    def batch_multiple(self) -> int:
        """Tokens that a batch with prefill is a multiple of; 1 where none is set."""
        if isinstance(self.tile_size, int):
            return self.tile_size
        is_fixed = self.tile_size == "auto" and self.preset == "decode-maximal"
        return min(DEFAULT_TILE_SIZE, self.batch_tokens) if is_fixed else 1


def goes_with(setting: str, preset: str) -> bool:
    """Whether a setting may be set with a preset."""
    return preset in _GOES_WITH.get(setting, (preset,))
