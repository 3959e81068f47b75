"""The feature matrix: each row gives stock vLLM's tokens, or is refused with a clear reason."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.features import engines, served, virtual
from tests.features.asks import Result
from tests.features.rows import ROWS, SIDES, Row
from tests.features.table import Outcome, Outcomes

TOLERANCE = 1e-4
"""Between log probabilities or embeddings: sums in another order, in float32."""
LIMITS = {"slo": {"objective", "tile", "pace"}, "token budget": {"token_budget", "pace"}}
"""What keeps steps small under each of our settings: it shows that they were at work."""

Folders = dict[str, str]
Side = Mapping[str, Any] | None


@pytest.fixture(scope="session")
def answered(
    folders: Folders, patched_vllm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Row, Side], Result]:
    """Runs a row on one side: an engine answers all rows with its arguments, and ends."""
    known: dict[str, dict[str, Result]] = {}
    storage = tmp_path_factory.mktemp("storage")

    def run(row: Row, settings: Side) -> Result:
        group = [one for one in ROWS if _engine_of(one) == _engine_of(row)]
        key = json.dumps([_engine_of(row), settings])
        if key not in known:
            log = tmp_path_factory.mktemp("steps") / "steps.jsonl"
            given = dict(settings) | {"step_log": str(log)} if settings is not None else None
            own = folders | {"storage": str(storage / row.feature)}
            known[key] = engines.ask(
                engines.arguments(row.engine, given, own),
                sorted({one.ask for one in group}),
                folders,
                patched_vllm if row.patched else None,
            )
            if settings is not None and row.engine.get("runner") != "pooling":
                side = next(name for name, chosen in SIDES.items() if chosen == settings)
                assert engines.limits_of(log) & LIMITS[side]
        return known[key][row.ask]

    return run


def _engine_of(row: Row) -> list[Any]:
    """What rows have in common that share an engine."""
    return [row.place, row.patched, dict(row.engine)]


def compare(row: Row, run: Callable[[Side], Result], outcomes: Outcomes) -> None:
    """Run both sides; the row works if they answer alike and the feature was at work."""
    outcomes[row.feature] = Outcome("**fails**")
    stock = run(None)
    assert stock.answers
    at_work = []
    for name, settings in row.sides.items():
        ours = run(settings)
        assert alike(ours.answers, stock.answers), f"{name}: {difference(ours, stock)}"
        assert all((stock.counts | ours.counts).values()), (stock.counts, ours.counts)
        at_work.append(ours.counts)
    counts = {kind: [int(found[kind]) for found in at_work] for kind in at_work[0]}
    shown = "; ".join(f"{kind}: {', '.join(map(str, n))}" for kind, n in counts.items())
    outcomes[row.feature] = Outcome("works", shown)


def alike(ours: Any, stock: Any) -> bool:
    """Whether answers are equal, numbers with a fraction nearly."""
    if isinstance(ours, list | tuple) and isinstance(stock, list | tuple):
        return len(ours) == len(stock) and all(map(alike, ours, stock))
    if isinstance(ours, float) and isinstance(stock, float):
        return ours == pytest.approx(stock, abs=TOLERANCE)
    return bool(ours == stock)


def difference(ours: Result, stock: Result) -> str:
    """The first answers that differ."""
    pairs = zip(ours.answers, stock.answers, strict=False)
    return next((f"{a!r} != {b!r}" for a, b in pairs if not alike(a, b)), "their number")


def rows_on(*places: str) -> pytest.MarkDecorator:
    """Parametrises a test with the rows that run in some places."""
    found = [row for row in ROWS if row.place in places]
    return pytest.mark.parametrize("row", found, ids=[row.feature for row in found])


@pytest.mark.features
@pytest.mark.timeout(3 * engines.LIMIT_S)
@rows_on("engine", "async engine")
def test_an_engine_gives_stock_vllms_tokens(
    row: Row, answered: Callable[[Row, Side], Result], outcomes: Outcomes
) -> None:
    compare(row, lambda settings: answered(row, settings), outcomes)


@pytest.mark.features
@pytest.mark.timeout(3 * engines.LIMIT_S)
@rows_on("server")
def test_a_server_gives_stock_vllms_tokens(
    row: Row,
    folders: Folders,
    outcomes: Outcomes,
    server_environment: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def run(settings: Side) -> Result:
        for name in row.folders:
            server_environment.setenv(name, str(tmp_path_factory.mktemp("empty")))
        ours = ("--scheduler", "sarathi", "--sarathi-config", json.dumps(settings))
        flags = row.flags if settings is None else (*row.flags, *ours)
        found, limits = served.ask_server(folders["llama"], flags, row.ask, row.num_servers)
        if settings is not None:
            side = next(name for name, chosen in SIDES.items() if chosen == settings)
            assert limits & LIMITS[side]
        return found

    compare(row, run, outcomes)


@rows_on("virtual time")
def test_a_scheduler_gives_stock_vllms_tokens(row: Row, outcomes: Outcomes) -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from vllm_sarathi import AsyncSarathiScheduler, SarathiScheduler

    def with_classes(stock: type, ours: type) -> Callable[[Side], Result]:
        def run(settings: Side) -> Result:
            if settings is None:
                return virtual.ask_scheduler(stock, None, row.ask)
            return virtual.ask_scheduler(ours, dict(settings), row.ask)

        return run

    compare(row, with_classes(Scheduler, SarathiScheduler), outcomes)
    compare(row, with_classes(AsyncScheduler, AsyncSarathiScheduler), outcomes)


@rows_on("configuration")
def test_what_cannot_work_is_refused_with_its_reason(
    row: Row, folders: Folders, outcomes: Outcomes
) -> None:
    from vllm.engine.arg_utils import EngineArgs

    outcomes[row.feature] = Outcome("**fails**")
    given = engines.arguments(row.engine, SIDES["slo"], folders)
    del given["disable_log_stats"]
    with pytest.raises(ValueError, match="preset='observe'") as refused:
        EngineArgs(**given).create_engine_config()
    assert row.refusal in str(refused.value)
    outcomes[row.feature] = Outcome("refused", f"`{refused.value}`")


@rows_on("not run")
def test_a_row_that_is_not_run_says_why(row: Row, outcomes: Outcomes) -> None:
    assert row.note
    outcomes[row.feature] = Outcome("not run here")
