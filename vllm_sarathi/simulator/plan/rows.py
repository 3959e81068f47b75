"""A plan as rows, and as the commands that start what it chose."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.machine.deployments import MEMORY_SHARE
from vllm_sarathi.simulator.plan.candidate import Candidate
from vllm_sarathi.simulator.plan.plan import Plan
from vllm_sarathi.simulator.plan.trial import Outcome

Row = dict[str, Any]
FIGURES = (
    *("goodput", "ttft_p50_s", "ttft_p99_s", "tpot_p50_ms", "tpot_p99_ms"),
    *("tbt_p99_ms", "tbt_max_ms", "e2e_p99_s", "output_tokens_per_s", "preemptions"),
)


def rows(plan: Plan) -> list[Row]:
    """The best settings of each scheduler on each candidate, the cheapest first.

    ``status`` is "serves"; "costs more" where the load may be served, but not for less than by
    the best choice; or "none found". ``replicas_at_least`` is below ``replicas`` where fewer may
    do: they would still cost more than the best choice. ``utilisation`` is the share of the rate
    that arithmetic and memory bandwidth allow.
    """
    best: dict[tuple[str, str], int] = {}
    for index, choice in enumerate(plan.choices):
        key = (choice.candidate.deployment.name, choice.engine.scheduler)
        if key not in best or _rank(plan, index) < _rank(plan, best[key]):
            best[key] = index
    found = [_row(plan, index) for index in best.values()]
    return sorted(found, key=lambda row: (row["status"] != "serves", row["usd_per_hour"]))


def _rank(plan: Plan, index: int) -> tuple[bool, float]:
    return plan.search.options[index].holds is None, plan.usd_per_hour(index)


def _row(plan: Plan, index: int) -> Row:
    choice, option = plan.choices[index], plan.search.options[index]
    candidate, held = choice.candidate, option.holds
    num = option.fails + 1 if held is None else held
    usd = plan.usd_per_hour(index)
    outcome = plan.outcomes.get((index, num)) or {}
    figures = outcome.get("figures", {})
    return {
        "status": _status(plan, index),
        # Where nothing is known to serve, it is of any settings that the cost is a bound.
        "scheduler": choice.engine.scheduler if held is None else choice.engine.name,
        "deployment": candidate.deployment.name,
        "source": candidate.deployment.source,
        "gpu": candidate.gpu,
        "tensor_parallel_size": candidate.tensor_parallel,
        "pipeline_parallel_size": len(candidate.deployment.stages),
        "replicas": num,
        "replicas_at_least": option.fails + 1,
        "gpus": num * candidate.num_gpus,
        "usd_per_hour": usd,
        "usd_per_1000_requests": usd / 3.6 / plan.demand.rate,
        "utilisation": None if held is None else plan.demand.rate / num / candidate.most_rate,
        "headroom": plan.headroom.get(index),
        **{name: figures.get(name) for name in FIGURES},
        "warm_up_share": outcome.get("warm_up_share"),
        "missed_with_one_fewer": _missed(plan, index, num - 1),
        "error": _error(plan, index),
    }


def _error(plan: Plan, index: int) -> str | None:
    errors = (one.get("error") for (of, _), one in plan.outcomes.items() if of == index)
    return next(filter(None, errors), None)


def _status(plan: Plan, index: int) -> str:
    option = plan.search.options[index]
    if option.holds is not None:
        return "serves"
    best = plan.search.best(option.family)
    return "none found" if best is None else "costs more"


def _missed(plan: Plan, index: int, num_replicas: int) -> list[dict[str, Any]] | None:
    """What a run to the end misses; None where there was none."""
    outcome = plan.outcomes.get((index, num_replicas))
    if outcome is None or not outcome["is_whole"]:
        return None
    return [check for check in outcome["checks"] if not check["met"]]


def points(plan: Plan) -> Iterator[tuple[int, float, Outcome]]:
    """Every run: the choice's index, USD per hour, and what it came to."""
    for (index, num_replicas), outcome in plan.outcomes.items():
        if "figures" in outcome:
            usd = plan.choices[index].candidate.usd_per_hour * num_replicas
            yield index, usd, outcome


def serve_command(
    model: str, candidate: Candidate, engine: EngineSettings, flags: Mapping[str, Any]
) -> str:
    """The command that starts one replica.

    Args:
        model: what to serve.
        candidate: on how many GPUs.
        engine: the scheduler, and how vLLM is set up.
        flags: further options with their values.
    """
    parallel = {
        "--tensor-parallel-size": candidate.tensor_parallel,
        "--pipeline-parallel-size": len(candidate.deployment.stages),
    }
    flags = {
        **{flag: size for flag, size in parallel.items() if size > 1},
        "--max-model-len": candidate.deployment.max_model_len,
        "--max-num-batched-tokens": engine.max_num_batched_tokens,
        "--max-num-seqs": engine.num_seqs,
        "--gpu-memory-utilization": MEMORY_SHARE,
        **({"--scheduling-policy": engine.policy} if engine.policy != "fcfs" else {}),
        **flags,
    }
    if engine.scheduler == "sarathi" or engine.sarathi:
        flags["--scheduler"] = "sarathi"
    if engine.scheduler not in ("stock", "sarathi"):
        flags["--scheduler-cls"] = engine.scheduler
    own = engine.sarathi.items()
    flags |= {f"--sarathi-{name.replace('_', '-')}": value for name, value in own}
    words = [word for flag, value in flags.items() for word in (flag, _plain(value))]
    if not engine.async_scheduling:
        words.append("--no-async-scheduling")
    if engine.enable_prefix_caching is False:
        words.append("--no-enable-prefix-caching")
    return shlex.join(["vllm", "serve", model, *words])


def _plain(value: Any) -> str:
    """A value as one would write it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return value if isinstance(value, str) else json.dumps(value)
