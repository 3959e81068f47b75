"""A step log as a server would write it, of a run in virtual time."""

from pathlib import Path
from typing import Any

from vllm_sarathi.simulator import (
    Deployment,
    EngineSettings,
    LengthDistribution,
    Quantiles,
    Report,
    Synthetic,
    simulate,
)

LENGTHS = LengthDistribution(
    "short", Quantiles(((0, 16), (1, 600))), Quantiles(((0, 4), (1, 40))), 1024
)


def record(
    path: Path,
    machine: Deployment,
    num_requests: int = 60,
    rate: float = 20.0,
    settings: dict[str, Any] | None = None,
    **engine: Any,
) -> Report:
    """Run an engine that writes a step log; what came of it."""
    own = {"preset": "observe", "step_log": str(path)} | (settings or {})
    traffic = Synthetic(LENGTHS, num_requests)
    return simulate(EngineSettings("sarathi", own, **engine), machine, traffic.at(rate, 0))
