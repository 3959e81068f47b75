"""Find the cheapest deployment, run by run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

from vllm_sarathi.simulator.engine.settings import EngineSettings
from vllm_sarathi.simulator.plan.candidate import Candidate
from vllm_sarathi.simulator.plan.journal import Journal
from vllm_sarathi.simulator.plan.search import Option, Search
from vllm_sarathi.simulator.plan.trial import Demand, Outcome, Trial, run_trial
from vllm_sarathi.simulator.results.comparison import run_pulled
from vllm_sarathi.simulator.run import reason


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate under one scheduler."""

    candidate: Candidate
    engine: EngineSettings

    @property
    def name(self) -> str:
        """What progress calls it."""
        return f"{self.candidate.deployment.name} {self.engine.name}"

    def option(self, rate: float) -> Option:
        """What is known of it before any run."""
        candidate = self.candidate
        least = ceil(rate / candidate.most_rate)
        return Option(self.engine.scheduler, candidate.usd_per_hour, least)


def every_choice(
    candidates: Sequence[Candidate], engines: Sequence[EngineSettings]
) -> list[Choice]:
    """Each candidate under each scheduler, as ``Plan.choices`` has them."""
    return [Choice(candidate, engine) for candidate in candidates for engine in engines]


@dataclass(slots=True)
class Plan:
    """What was found.

    Args:
        demand: what has to be served.
        choices: what there was to choose from.
        search: what is known of each choice.
        outcomes: of every run, by the choice's index and the number of replicas.
        headroom: by what share the rate may rise for a choice, where that was looked for.
    """

    demand: Demand
    choices: Sequence[Choice]
    search: Search
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    headroom: dict[int, float] = field(default_factory=dict)

    @property
    def best(self) -> list[int]:
        """The cheapest choice of each scheduler that serves the load, cheapest first."""
        families = dict.fromkeys(choice.engine.scheduler for choice in self.choices)
        found = [index for one in families if (index := self.search.best(one)) is not None]
        return sorted(found, key=self.usd_per_hour)

    def usd_per_hour(self, index: int) -> float:
        """What a choice costs with the fewest replicas that hold, or what it costs at least."""
        option = self.search.options[index]
        num = option.fails + 1 if option.holds is None else option.holds
        return option.usd_per_hour * num

    def trial(self, index: int, num_replicas: int) -> Trial:
        """A run of a choice."""
        choice = self.choices[index]
        return Trial(self.demand, choice.candidate.deployment, choice.engine, num_replicas)


class RunProgress(NamedTuple):
    """How far a run is.

    Args:
        num_replicas: how many it has.
        share: how much of it is done.
    """

    num_replicas: int
    share: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What is called while a plan is made.

    Args:
        on_progress: with a choice's index and how far its run is.
        on_outcome: with the search, a choice's index and what its run came to.
    """

    on_progress: Callable[[int, RunProgress], object] = lambda index, run: None
    on_outcome: Callable[[Search, int, Outcome], object] = lambda search, index, outcome: None


def make_plan(
    candidates: Sequence[Candidate],
    engines: Sequence[EngineSettings],
    demand: Demand,
    *,
    num_jobs: int = 1,
    journal: Journal | None = None,
    callbacks: Callbacks | None = None,
) -> Plan:
    """Find the cheapest choice of each scheduler that serves a load (Vidur, section 6).

    Unlike Vidur-Search, which finds every candidate's capacity, the fewest replicas are sought,
    and only where they may be cheaper than the best choice known.

    Args:
        candidates: deployments to choose from.
        engines: schedulers with their settings; those of one scheduler compete.
        demand: what has to be served.
        num_jobs: processes that run at a time.
        journal: runs that are done already; new ones are added.
        callbacks: what is called meanwhile.

    Returns:
        What was found.
    """
    journal = Journal(None) if journal is None else journal
    callbacks = callbacks or Callbacks()
    choices = every_choice(candidates, engines)
    plan = Plan(demand, choices, Search([choice.option(demand.rate) for choice in choices]))

    def note(index: int, outcome: Outcome) -> None:
        plan.outcomes[index, outcome["replicas"]] = outcome
        plan.search.answer(index, outcome["replicas"], outcome["holds"])
        callbacks.on_outcome(plan.search, index, outcome)

    def pull() -> tuple[int, Trial] | None:
        while (question := plan.search.question()) is not None:
            index, num_replicas = question
            trial = plan.trial(index, num_replicas)
            if (known := journal.outcome(trial.key)) is None:
                return index, trial
            note(index, known)
        return None

    for index, (trial, outcome) in run_pulled(attempt, pull, num_jobs, callbacks.on_progress):
        journal.add(trial.key, outcome)
        note(index, outcome)
    return plan


def attempt(trial: Trial, tell: Callable[[Any], object]) -> tuple[Trial, Outcome]:
    """Run a trial; where that fails it does not hold, and the reason is kept."""
    try:
        return trial, run_trial(trial, lambda share: tell(RunProgress(trial.num_replicas, share)))
    except Exception as error:  # whatever a scheduler of the user's own may raise
        failed = {"holds": False, "is_whole": False, "error": reason(error)}
        return trial, {"replicas": trial.num_replicas, **failed}
