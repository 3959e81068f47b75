"""Deployments that a plan may choose from, with what a replica costs and can at most serve."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from vllm_sarathi.simulator.kv_room import check_kv_tokens
from vllm_sarathi.simulator.load.workload import Workload
from vllm_sarathi.simulator.machine.deployments import on_gpus
from vllm_sarathi.simulator.machine.gpus import Gpu
from vllm_sarathi.simulator.machine.models import Model
from vllm_sarathi.simulator.machine.step_cost import Deployment, StepCost

TENSOR_PARALLEL, NUM_STAGES = (1, 2, 4, 8), (1, 2, 4)
# No batch is larger: vLLM's token budgets end about there.
MOST_BATCH_TOKENS = 16384


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run a model, of which there may be several replicas.

    Args:
        deployment: one replica.
        gpu: the name of its GPUs.
        tensor_parallel: GPUs of each pipeline stage.
        usd_per_hour: price of one replica.
        most_rate: requests per second that its arithmetic and memory bandwidth allow, were
            every batch the best one; no scheduler reaches it.
    """

    deployment: Deployment
    gpu: str
    tensor_parallel: int
    usd_per_hour: float
    most_rate: float

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * len(self.deployment.stages)


def candidates(
    model: Model,
    gpus: Iterable[Gpu],
    usd_per_gpu_hour: Mapping[str, float],
    workload: Workload,
    max_model_len: int | None = None,
) -> tuple[list[Candidate], dict[str, str]]:
    """Every split of a model over GPUs of one kind that can serve a load.

    Tensor parallelism stays within a server, where the links are fast.

    Args:
        model: what is served.
        gpus: kinds to choose from.
        usd_per_gpu_hour: price by a GPU's name.
        workload: the load, of which every request has to fit.
        max_model_len: longest prompt plus output, in tokens; None keeps the model's.

    Returns:
        The candidates, and by its name why each other split is none.

    Raises:
        ValueError: the model takes no requests as long as ``max_model_len``.
    """
    if max_model_len is not None and max_model_len > model.max_model_len:
        raise ValueError(
            f"max_model_len={max_model_len} must be at most {model.max_model_len}, the most that "
            f"{model.name} takes"
        )
    found, refused = [], {}
    for gpu, num_stages, tensor_parallel in product(gpus, NUM_STAGES, TENSOR_PARALLEL):
        if tensor_parallel > gpu.num_in_server:
            continue
        try:
            made = on_gpus(gpu, model, tensor_parallel, num_stages)
            if max_model_len is not None:
                made = replace(made, max_model_len=max_model_len)
            check_kv_tokens(made.num_kv_tokens, made.max_model_len, made.kv_windows)
            workload.check_fits(made.max_model_len, made.num_kv_tokens, made.kv_windows)
        except ValueError as error:
            refused[f"{gpu.name} tp{tensor_parallel} pp{num_stages}"] = str(error)
            continue
        usd_per_hour = usd_per_gpu_hour[gpu.name] * tensor_parallel * num_stages
        rate = most_rate(made, workload)
        found.append(Candidate(made, gpu.name, tensor_parallel, usd_per_hour, rate))
    return found, refused


def most_rate(deployment: Deployment, workload: Workload) -> float:
    """An upper bound of the requests per second that a deployment serves.

    Each token costs at least what it costs in the best batch, each pair of a query and a key
    its attention. What prompts share is computed once at least.
    """
    lengths = workload.lengths
    num_prompt, num_output = lengths.num_prompt.astype(float), lengths.num_output - 1.0
    pairs = 0.0 if workload.shares_prefixes else float((num_prompt**2 / 2).mean())
    tokens = lengths.num_distinct / len(workload) + float(num_output.mean())
    context = float((num_output * (num_prompt + num_output / 2)).mean())
    seconds = max(
        tokens * _least_token_s(stage)
        + pairs * stage.chunk_context_s
        + context * stage.decode_context_s
        for stage in deployment.stages
    )
    return 1 / seconds


def _least_token_s(stage: StepCost) -> float:
    """Seconds that a token takes in the best batch; between the table's points it is worse."""
    sizes = {num for num, _ in stage.token_points if 0 < num < MOST_BATCH_TOKENS}
    return min(stage.tokens_s(num) / num for num in sizes | {MOST_BATCH_TOKENS})
