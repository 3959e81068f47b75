"""Arms that take turns, and their figures over seeds."""

from collections.abc import Iterable, Iterator, Sequence

from support.gpu.record import Record


def turns(arms: Iterable[str], seeds: int) -> Iterator[tuple[int, str]]:
    """Seed and arm: every arm once for each seed, each time another one first."""
    names = list(arms)
    for seed in range(seeds):
        first = seed % len(names)
        yield from ((seed, name) for name in (*names[first:], *names[:first]))


def column(record: Record, key: Sequence[str], name: str) -> list[float | None]:
    """A figure of each result whose key begins so."""
    return [figures[name] for _, figures in record.of(*key)]


def by_seed(record: Record, key: Sequence[str], name: str) -> dict[str, float | None]:
    """As above, by the last part of the key."""
    return {words[-1]: figures[name] for words, figures in record.of(*key)}
