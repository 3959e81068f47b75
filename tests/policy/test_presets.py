"""Each preset names a policy."""

import pytest

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.objectives import ObjectivesReader
from vllm_sarathi.policy.batch_builder import StallFree
from vllm_sarathi.policy.presets import policy
from vllm_sarathi.policy.throughput_budget import ThroughputTokenBudget
from vllm_sarathi.policy.token_budget import FixedTokenBudget, SloTokenBudget


@pytest.mark.parametrize(
    ("settings", "num_stages", "keeps_paused_decodes", "pauses"),
    [
        ({}, 1, True, True),
        ({"tbt_slo_ms": 50}, 1, True, True),
        ({"tbt_slo_ms": 50}, 1, False, False),
        ({"tbt_slo_ms": 50}, 2, True, False),
        ({"tbt_slo_ms": 50, "tile_size": None}, 1, True, False),
        ({"tbt_slo_ms": 50, "max_prefills_per_batch": 1}, 1, True, False),
        ({"tbt_slo_ms": None}, 1, True, True),  # where a request states one
        ({"preset": "stall-free"}, 1, True, False),
        ({"preset": "offline"}, 1, True, False),
        ({"order": "mlfq"}, 1, True, False),
    ],
)
def test_decodes_pause_only_where_an_objective_and_the_model_runner_allow_it(
    settings: dict[str, object], num_stages: int, keeps_paused_decodes: bool, pauses: bool
) -> None:
    found = policy(
        SarathiConfig.from_mapping(settings),
        num_stages=num_stages,
        keeps_paused_decodes=keeps_paused_decodes,
    )
    assert found.pauses_decodes is pauses


def test_micro_batches_are_balanced_over_more_than_one_stage_unless_told_otherwise() -> None:
    assert policy(SarathiConfig()).cohorts is None
    assert policy(SarathiConfig(), num_stages=2).cohorts is not None
    unbalanced = SarathiConfig(balance_micro_batches=False)
    assert policy(unbalanced, num_stages=2).cohorts is None


@pytest.mark.parametrize(
    ("settings", "num_stages", "kind"),
    [
        ({}, 1, SloTokenBudget),
        ({"preset": "stall-free"}, 1, FixedTokenBudget),
        ({"preset": "stall-free", "order": "mlfq"}, 1, FixedTokenBudget),
        ({"preset": "offline"}, 1, ThroughputTokenBudget),
        ({"order": "mlfq"}, 1, ThroughputTokenBudget),
        ({"preset": "offline"}, 2, SloTokenBudget),  # even micro-batches
    ],
)
def test_what_sizes_a_batch_follows_from_the_preset_and_the_order(
    settings: dict[str, object], num_stages: int, kind: type
) -> None:
    builder = policy(SarathiConfig.from_mapping(settings), num_stages=num_stages).builder
    assert isinstance(builder, StallFree)
    assert isinstance(builder.token_budget, kind)


@pytest.mark.parametrize("settings", [{"preset": "offline"}, {"order": "mlfq"}])
def test_no_gap_objective_is_followed_unasked_where_throughput_or_job_time_counts(
    settings: dict[str, object],
) -> None:
    assert not ObjectivesReader(SarathiConfig.from_mapping(settings)).default.auto_tbt
