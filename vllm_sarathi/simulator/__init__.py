"""A simulator that runs the real scheduler classes in virtual time.

Example:
    >>> from vllm_sarathi.simulator import *
    >>> traffic = Synthetic(LENGTHS["sharegpt"], num_requests=300)
    >>> found = find_capacity(
    ...     EngineSettings("stock", max_num_batched_tokens=512),
    ...     deployment("a100-llama-3-8b"),
    ...     traffic,
    ...     CapacityGoal(tbt_s=0.1),
    ... )
    >>> found.rate  # requests per second
"""

from vllm_sarathi.latency import Objectives
from vllm_sarathi.policy.step_time import StepWork
from vllm_sarathi.simulator.capacity import Capacity, find_capacity
from vllm_sarathi.simulator.engine.loop import SchedulerDeadlockError
from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.engine.speculation import Speculation
from vllm_sarathi.simulator.goal import CapacityGoal, Check
from vllm_sarathi.simulator.load.lengths import (
    LENGTHS,
    Agentic,
    Fixed,
    LengthDistribution,
    LongAmongShort,
    Quantiles,
    Zipf,
)
from vllm_sarathi.simulator.load.trace import read_trace
from vllm_sarathi.simulator.load.traffic import Arrivals, Diurnal, Ramp, Replay, Synthetic
from vllm_sarathi.simulator.load.workload import Lengths, QosClass, Workload
from vllm_sarathi.simulator.machine.deployments import deployment, on_gpus
from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.models import MODELS, read_model
from vllm_sarathi.simulator.machine.step_cost import Deployment, Overhead, StepCost
from vllm_sarathi.simulator.results.report import Report
from vllm_sarathi.simulator.run import simulate

__all__ = [
    "GPUS",
    "LENGTHS",
    "MODELS",
    "Agentic",
    "Arrivals",
    "Capacity",
    "CapacityGoal",
    "Check",
    "Deployment",
    "Diurnal",
    "EngineSettings",
    "Fixed",
    "LengthDistribution",
    "Lengths",
    "LongAmongShort",
    "Objectives",
    "Overhead",
    "QosClass",
    "Quantiles",
    "Ramp",
    "Replay",
    "Report",
    "SchedulerDeadlockError",
    "Speculation",
    "StepCost",
    "StepWork",
    "Synthetic",
    "Workload",
    "Zipf",
    "deployment",
    "find_capacity",
    "on_gpus",
    "read_model",
    "read_trace",
    "simulate",
]
