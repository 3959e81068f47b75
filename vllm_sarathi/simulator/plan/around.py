"""What lies around the best choices: one replica fewer, more of them, and more load."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from vllm_sarathi.simulator.plan.journal import Journal
from vllm_sarathi.simulator.plan.plan import Callbacks, Plan, attempt
from vllm_sarathi.simulator.plan.trial import Outcome, Trial
from vllm_sarathi.simulator.results.comparison import run_watched

# Multiples of the replicas, for what more of them buy.
MORE = (1.25, 1.5, 2.0)
# Multiples of the rate that are tried one after the other.
LOADS = (1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True, slots=True)
class _Look:
    """Something to find out about a choice, by its index."""

    index: int
    trial: Trial
    is_for_headroom: bool = False

    @property
    def key(self) -> str:
        """What makes the answer what it is, in short."""
        return f"{self.trial.key} headroom" if self.is_for_headroom else self.trial.key


def look_around(plan: Plan, num_jobs: int, journal: Journal, callbacks: Callbacks) -> None:
    """Add to a plan what lies around its best choices.

    Args:
        plan: gets it.
        num_jobs: processes that run at a time.
        journal: runs that are done already; new ones are added.
        callbacks: what is called meanwhile.
    """

    def note(look: _Look, found: Outcome) -> None:
        if look.is_for_headroom:
            plan.headroom[look.index] = found["headroom"]
        else:
            plan.outcomes[look.index, look.trial.num_replicas] = found

    missing = []
    for look in _looks(plan):
        known = journal.outcome(look.key)
        if known is None:
            missing.append(look)
        else:
            note(look, known)
    for place, found in run_watched(
        _find,
        missing,
        num_jobs,
        lambda place, run: callbacks.on_progress(missing[place].index, run),
    ):
        journal.add(missing[place].key, found)
        note(missing[place], found)


def _looks(plan: Plan) -> Iterator[_Look]:
    """What to find out; with one replica fewer a run goes to the end, to say what is missed."""
    for index in plan.best:
        num = plan.search.options[index].holds
        assert num is not None
        yield _Look(index, plan.trial(index, num), is_for_headroom=True)
        for more in sorted({ceil(num * factor) for factor in MORE} - {num}):
            yield _Look(index, plan.trial(index, more))
        if num > 1:
            yield _Look(index, replace(plan.trial(index, num - 1), is_whole=True))


def _find(look: _Look, tell: Callable[[Any], object]) -> Outcome:
    if look.is_for_headroom:
        return {"headroom": _headroom(look.trial, tell)}
    return attempt(look.trial, tell)[1]


def _headroom(trial: Trial, tell: Callable[[Any], object]) -> float:
    """By what share the rate may rise, at least; 0 to 4, in steps."""
    held = 1.0
    for load in LOADS:
        demand = replace(trial.demand, rate=trial.demand.rate * load)
        if not attempt(replace(trial, demand=demand), tell)[1]["holds"]:
            break
        held = load
    return held - 1
