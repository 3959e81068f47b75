"""Plans on the small machine."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vllm_sarathi.simulator import (
    EngineSettings,
    Fixed,
    Lengths,
    QosClass,
    Replay,
    Synthetic,
    Workload,
)
from vllm_sarathi.simulator.load.workload import PromptBlocks
from vllm_sarathi.simulator.plan.around import look_around
from vllm_sarathi.simulator.plan.candidate import Candidate
from vllm_sarathi.simulator.plan.journal import Journal
from vllm_sarathi.simulator.plan.plan import Callbacks, Plan, make_plan
from vllm_sarathi.simulator.plan.rows import rows, serve_command
from vllm_sarathi.simulator.plan.trial import Demand, Trial, run_trial, shared


def holds(plan: Plan, index: int, num_replicas: int) -> bool:
    found: bool = run_trial(plan.trial(index, num_replicas), lambda share: None)["holds"]
    return found


@pytest.fixture
def plan(ways: list[Candidate], engines: list[EngineSettings], demand: Demand) -> Plan:
    return make_plan(ways, engines, demand)


def test_the_best_choice_of_each_scheduler_holds_and_one_replica_fewer_does_not(
    plan: Plan,
) -> None:
    assert {plan.choices[index].engine.scheduler for index in plan.best} == {"stock", "sarathi"}
    for index in plan.best:
        num = plan.search.options[index].holds
        assert num is not None
        assert num > 1
        assert holds(plan, index, num)
        assert not holds(plan, index, num - 1)


def test_no_choice_that_was_passed_over_is_cheaper(plan: Plan) -> None:
    for index in plan.best:
        family, usd = plan.choices[index].engine.scheduler, plan.usd_per_hour(index)
        for other, choice in enumerate(plan.choices):
            price = choice.candidate.usd_per_hour
            cheaper = int((usd - 1e-6) / price)
            if choice.engine.scheduler == family and cheaper:
                assert not holds(plan, other, cheaper)


def test_what_lies_around_the_best_choice_is_known(plan: Plan) -> None:
    look_around(plan, 1, Journal(None), Callbacks())
    for row in rows(plan):
        if row["headroom"] is None:
            continue
        assert row["status"] == "serves"
        assert 0 <= row["headroom"] < 1
        assert [check["figure"] for check in row["missed_with_one_fewer"]]
    more = [num for (index, num) in plan.outcomes if index in plan.best]
    assert max(more) >= 2 * min(plan.search.options[index].holds or 0 for index in plan.best)


def test_rows_say_what_a_passed_over_choice_costs_at_least(plan: Plan) -> None:
    found = rows(plan)
    served = [row for row in found if row["status"] == "serves"]
    assert served[0]["usd_per_hour"] == min(row["usd_per_hour"] for row in served)
    for row in found:
        if row["status"] == "costs more":
            rivals = [one for one in served if one["scheduler"].startswith(row["scheduler"])]
            assert row["usd_per_hour"] >= rivals[0]["usd_per_hour"]
    assert json.loads(json.dumps(found)) == found


def test_a_plan_goes_on_from_its_journal(
    ways: list[Candidate], engines: list[EngineSettings], demand: Demand, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    first = make_plan(ways, engines, demand, journal=Journal(path))
    ran = path.read_text().splitlines()
    path.write_text("\n".join([*ran[:-2], ran[-2][:40]]))  # interrupted while it wrote
    journal = Journal(path)
    assert len(path.read_text().splitlines()) == len(ran) - 2
    again = make_plan(ways, engines, demand, journal=journal)
    assert again.best == first.best
    assert again.outcomes.keys() == first.outcomes.keys()
    assert len(path.read_text().splitlines()) == len(ran)
    told: list[int] = []
    make_plan(
        ways, engines, demand, journal=Journal(path),
        callbacks=Callbacks(on_progress=lambda index, run: told.append(index)),
    )  # fmt: skip
    assert not told


def test_a_journal_of_another_demand_is_of_no_use(plan: Plan) -> None:
    trial = plan.trial(0, 2)
    others: list[Trial] = [
        plan.trial(0, 3),
        plan.trial(1, 2),
        replace(trial, demand=replace(trial.demand, rate=61.0)),
        replace(trial, demand=replace(trial.demand, seeds=(1,))),
        replace(trial, is_whole=True),
    ]
    assert len({trial.key, *(other.key for other in others)}) == 6
    assert plan.trial(0, 2).key == trial.key


def test_a_journal_tells_loads_apart_by_all_that_they_hold(plan: Plan) -> None:
    trial, load = plan.trial(0, 2), Synthetic(Fixed(100, 5), 6).at(1.0, 0)

    def key(workload: Workload) -> str:
        return replace(trial, demand=replace(trial.demand, traffic=Replay(workload))).key

    num, some = len(load), np.arange(len(load)) % 2
    lengths = [
        load.lengths,
        *(replace(load.lengths, num_shared=np.full(num, n), prefix=some) for n in (0, 64)),
        replace(load.lengths, blocks=PromptBlocks([(n,) for n in range(num)], 16)),
        replace(load.lengths, blocks=PromptBlocks([(1,)] * num, 16)),
        replace(load.lengths, blocks=PromptBlocks([(1,)] * num, 32)),
    ]
    loads = [replace(load, lengths=one) for one in lengths]
    two_classes = (QosClass(), QosClass("batch", priority=1))
    loads += [replace(load, classes=two_classes, class_of=some * n) for n in (0, 1)]
    assert len({key(one) for one in loads}) == len(loads)


def recorded(demand: Demand, lengths: Lengths, rate: float) -> Demand:
    """The demand with a recorded load at an even rate."""
    num = len(lengths.num_prompt)
    workload = Workload("recorded", np.arange(num) / rate, lengths)
    return replace(demand, traffic=Replay(workload), rate=Replay(workload).rate)


def test_each_replica_gets_its_own_requests_of_a_recorded_load(
    ways: list[Candidate], engines: list[EngineSettings], demand: Demand
) -> None:
    # By turns, one of two replicas gets all the long prompts: its P99 TTFT misses the goal.
    num_prompt = np.where(np.arange(80) % 2, 4000, 50)
    load = recorded(demand, Lengths(num_prompt, np.full(80, 2)), 8.0)
    goal = replace(demand.goal, tbt_s=None, ttft_s=0.3)
    plan = make_plan(ways[:1], engines[1:2], replace(load, goal=goal))
    assert not holds(plan, 0, 2)


def test_a_short_recorded_load_is_judged_as_it_is(
    ways: list[Candidate], engines: list[EngineSettings], demand: Demand
) -> None:
    load = recorded(demand, Lengths(np.full(10, 100), np.full(10, 400)), 3.0)
    plan = make_plan(ways[:1], engines[1:2], load)
    (row,) = rows(plan)
    assert (row["status"], row["replicas"], row["error"]) == ("serves", 1, None)
    assert row["warm_up_share"] > 0.5


@pytest.mark.parametrize("text", ["no JSON\n{}\n", '{"outcome": {}}\n{}\n', "hello"])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not of a plan"):
        Journal(path)
    assert path.read_text() == text


def test_a_run_that_fails_does_not_end_the_plan(
    ways: list[Candidate], engines: list[EngineSettings], demand: Demand
) -> None:
    broken = EngineSettings("sarathi", {"preset": "nonsense"})
    plan = make_plan(ways[:1], [broken, engines[1]], demand)
    by_name = {row["scheduler"]: row for row in rows(plan)}
    assert by_name["sarathi"]["status"] == "none found"
    assert "nonsense" in by_name["sarathi"]["error"]
    assert plan.best


def test_a_run_that_failed_is_tried_again(
    ways: list[Candidate], engines: list[EngineSettings], demand: Demand, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    broken = EngineSettings("sarathi", {"preset": "nonsense"})
    make_plan(ways[:1], [broken], demand, journal=Journal(path))
    assert not path.read_text()


@pytest.mark.parametrize(
    ("num_replicas", "share", "together"), [(1, 1.0, 1), (3, 1.0, 3), (40, 0.1, 4)]
)
def test_a_router_that_looks_at_the_load_is_run_with_up_to_four_replicas(
    demand: Demand, num_replicas: int, share: float, together: int
) -> None:
    by_load = replace(demand, router="least-load")
    traffic, *rest = shared(demand.traffic, by_load, num_replicas)
    assert rest == [share, together]
    assert len(traffic.at(1.0, 0)) == 100 * together


def test_a_plan_for_a_router_that_looks_at_the_load_holds(
    ways: list[Candidate], engines: list[EngineSettings], demand: Demand
) -> None:
    plan = make_plan(ways[:1], engines[1:2], replace(demand, router="least-load"))
    assert rows(plan)[0]["status"] == "serves"


def test_the_command_says_all_that_the_plan_decided(ways: list[Candidate]) -> None:
    engine = EngineSettings("sarathi", {"ttft_slo_ms": 2000.0, "tpot_slo_ms": 50.0})
    command = serve_command("a model", ways[1], engine, {"--kv-cache-dtype": "fp8"})
    assert command == (
        "vllm serve 'a model' --pipeline-parallel-size 2 "
        "--max-model-len 8192 --max-num-batched-tokens 2048 --max-num-seqs 256 "
        "--gpu-memory-utilization 0.9 --kv-cache-dtype fp8 --scheduler sarathi "
        "--sarathi-ttft-slo-ms 2000 --sarathi-tpot-slo-ms 50"
    )


@pytest.mark.parametrize("engine", [EngineSettings("stock"), EngineSettings("my.Scheduler")])
def test_the_command_of_another_scheduler_names_it(
    engine: EngineSettings, ways: list[Candidate]
) -> None:
    command = serve_command("m", ways[0], engine, {})
    assert ("--scheduler-cls my.Scheduler" in command) is (engine.scheduler != "stock")
    assert "--sarathi" not in command


def test_the_command_spells_settings_as_the_server_reads_them(ways: list[Candidate]) -> None:
    engine = EngineSettings(
        "my.Scheduler",
        {"qos_classes": {"chat": {"ttft_slo_ms": 500}}, "shed": True},
        async_scheduling=False,
        enable_prefix_caching=False,
        policy="priority",
    )
    command = serve_command("m", ways[0], engine, {})
    assert "--scheduler sarathi --scheduler-cls my.Scheduler" in command
    assert (
        """--sarathi-qos-classes '{"chat": {"ttft_slo_ms": 500}}' --sarathi-shed true""" in command
    )
    assert command.endswith("--no-async-scheduling --no-enable-prefix-caching")
    assert "--scheduling-policy priority" in command


def test_the_front_holds_what_nothing_beats() -> None:
    from vllm_sarathi.simulator.plan.picture import pareto_front

    places = [(3.0, 1.0), (1.0, 5.0), (2.0, 6.0), (2.0, 2.0), (4.0, 1.0)]
    assert pareto_front(places) == [(1.0, 5.0), (2.0, 2.0), (3.0, 1.0)]


def test_a_plan_is_drawn(plan: Plan, tmp_path: Path) -> None:
    from vllm_sarathi.simulator.plan.picture import draw_plan

    assert draw_plan(plan, tmp_path / "new" / "plan.png").stat().st_size > 10_000
