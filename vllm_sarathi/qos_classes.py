"""Named classes of objectives, and the bounds that keep their names fit for metric labels."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveMs = Annotated[float, Field(gt=0, allow_inf_nan=False)]
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
