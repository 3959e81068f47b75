"""Named classes of objectives, and the bounds that keep their names fit for metric labels."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# vLLM reads JSON's true as 1, so that 1 ms of a request cannot be told from a mistake.
MIN_CLIENT_MS = 1.0
MAX_MS = 86_400_000.0
PositiveMs = Annotated[float, Field(gt=0, le=MAX_MS, allow_inf_nan=False)]
ClientMs = Annotated[float, Field(gt=MIN_CLIENT_MS, le=MAX_MS, allow_inf_nan=False)]
ClassName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]

MAX_CLASSES = 16
MIN_IMPORTANCE, MAX_IMPORTANCE = -100, 100


class QosClass(BaseModel):
    """Objectives of requests that name a class.

    A field that is given replaces the server-wide setting, null included: null asks
    nothing. A field that is absent leaves the server-wide setting in force.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    ttft_slo_ms: PositiveMs | None = None
    tpot_slo_ms: PositiveMs | None = None
    tbt_slo_ms: PositiveMs | None = None
    e2e_slo_ms: PositiveMs | None = None
    importance: Annotated[int, Field(ge=MIN_IMPORTANCE, le=MAX_IMPORTANCE)] = 0


NEVER_LONGER = (
    ("ttft_slo_ms", "e2e_slo_ms"),
    ("tpot_slo_ms", "e2e_slo_ms"),
    ("tbt_slo_ms", "e2e_slo_ms"),
    ("tpot_slo_ms", "tbt_slo_ms"),
)
"""The first is part of the second, or its mean: a larger objective for it says nothing."""


def refuse_out_of_order(objectives: Mapping[str, Any], where: str = "") -> None:
    """Refuse an objective that another one of the same place makes meaningless.

    Args:
        objectives: what is stated there, by name.
        where: what their names begin with.

    Raises:
        ValueError: names both and what is allowed.
    """
    for shorter, longer in NEVER_LONGER:
        part, whole = objectives[shorter], objectives[longer]
        if isinstance(part, float) and isinstance(whole, float) and part > whole:
            raise ValueError(
                f"{where}{shorter}={part} is above {where}{longer}={whole}, which bounds it "
                "already; at most that is allowed"
            )


DEFAULT_CLASS = "default"
READY_CLASSES = {
    # Requests that name no class.
    DEFAULT_CLASS: QosClass(),
    # First token: MLPerf Inference, server scenario of Llama-2-70B. Later tokens: the
    # interactive class of Niyama/QoServe (arXiv 2503.22562), as a mean.
    "interactive": QosClass(ttft_slo_ms=2000, tpot_slo_ms=50),
    # Nobody waits for single tokens: no objective, and who has one for the first token goes first.
    "batch": QosClass(
        ttft_slo_ms=None,
        tpot_slo_ms=None,
        tbt_slo_ms=None,
        e2e_slo_ms=None,
        importance=MIN_IMPORTANCE,
    ),
}
