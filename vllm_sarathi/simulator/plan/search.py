"""Which runs a plan needs: the fewest replicas of each option, and only where they may be cheapest.

More replicas hold whatever fewer hold. An option is first tried with as many replicas as would
still be cheaper than the best one known; if these do not hold, one run was enough.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import ceil

# Where nothing holds yet: up to so many times the replicas that arithmetic alone needs.
MOST_FACTOR = 16


@dataclass(slots=True)
class Option:
    """What a search knows of a choice.

    Args:
        family: options of one family compete: the cheapest of each is wanted.
        usd_per_hour: price of one replica.
        least: fewest replicas that the arithmetic allows.
        holds: fewest replicas known to hold; None before any is.
        fails: most replicas known not to hold.
        is_asked: whether a run is on its way.
    """

    family: Hashable
    usd_per_hour: float
    least: int
    holds: int | None = None
    fails: int = 0
    is_asked: bool = False

    def __post_init__(self) -> None:
        self.fails = self.least - 1

    @property
    def usd_at_least(self) -> float:
        """What it costs at least, as far as is known."""
        return self.usd_per_hour * (self.fails + 1)

    def question(self, limit_usd: float | None) -> int | None:
        """The number of replicas to try next; None if nothing more is to be known.

        Args:
            limit_usd: what the whole must stay below; None knows no limit yet.
        """
        if limit_usd is None:
            next_num = 2 * max(self.fails, self.least)
            return next_num if next_num <= MOST_FACTOR * self.least else None
        # What costs the same is not cheaper, whatever rounding says.
        most = ceil(limit_usd / self.usd_per_hour * (1 - 1e-9)) - 1
        if most <= self.fails:
            return None
        if self.holds is None or most < self.holds - 1:
            return most
        return (self.fails + self.holds) // 2 if self.holds - self.fails > 1 else None


class Search:
    """Asks for runs until the cheapest option of each family is known.

    Args:
        options: what to choose from.
    """

    def __init__(self, options: Sequence[Option]) -> None:
        self.options = options

    def best(self, family: Hashable) -> int | None:
        """The index of the cheapest option of a family that is known to hold."""
        held = [
            (one.usd_per_hour * one.holds, index)
            for index, one in enumerate(self.options)
            if one.family == family and one.holds is not None
        ]
        return min(held)[1] if held else None

    def question(self) -> tuple[int, int] | None:
        """The option to run next, by its index, and with how many replicas.

        None if there is nothing to run before another answer, or at all.
        """
        asked = (
            (one.usd_at_least, index, num)
            for index, one in enumerate(self.options)
            if not one.is_asked and (num := one.question(self._limit_usd(index))) is not None
        )
        found = min(asked, default=None)
        if found is None:
            return None
        _, index, num = found
        self.options[index].is_asked = True
        return index, num

    def answer(self, index: int, num_replicas: int, holds: bool) -> None:
        """Say what a run came to."""
        option = self.options[index]
        option.is_asked = False
        if holds:
            option.holds = min(num_replicas, option.holds or num_replicas)
        else:
            option.fails = max(num_replicas, option.fails)

    def is_decided(self, index: int) -> bool:
        """Whether nothing more is to be known of an option."""
        option = self.options[index]
        return not option.is_asked and option.question(self._limit_usd(index)) is None

    def _limit_usd(self, index: int) -> float | None:
        """What an option has to stay below: the best of its family, or itself."""
        best = self.best(self.options[index].family)
        if best is None:
            return None
        held = self.options[best]
        assert held.holds is not None
        return held.usd_per_hour * held.holds
