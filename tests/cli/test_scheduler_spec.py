from typing import Any

import pytest

from vllm_sarathi.cli.scheduler_spec import parse_scheduler, with_objective
from vllm_sarathi.simulator import EngineSettings


@pytest.mark.parametrize(
    "word",
    [
        "stock:512",
        "stock:512,max_num_seqs=4",
        "stock:512,async_scheduling=false,policy=priority,enable_prefix_caching=true",
        "sarathi:8192,max_num_seqs=8,tbt_slo_ms=50.5,tile_size=null,balance_micro_batches=true",
        "sarathi:2048,preset=stall-free",
        "sarathi:2048,preset=offline,order=mlfq",
    ],
)
def test_the_name_of_an_engine_is_a_word_that_makes_it(word: str) -> None:
    assert parse_scheduler(word, {}).name == word


def test_a_label_of_ones_own_stays() -> None:
    assert EngineSettings(label="mine").name == "mine"
    assert parse_scheduler("stock,label=7", {}).name == "7"


def test_an_engine_is_one_word() -> None:
    engine = parse_scheduler("sarathi:1024,tbt_slo_ms=50,max_num_seqs=8", {})
    assert (engine.max_num_batched_tokens, engine.max_num_seqs) == (1024, 8)
    assert engine.sarathi == {"tbt_slo_ms": 50}


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("sarathi", {"tbt_slo_ms": 50.0}),
        ("sarathi,tbt_slo_ms=9", {"tbt_slo_ms": 9}),
        ("sarathi,tpot_slo_ms=9", {"tpot_slo_ms": 9}),
        ("sarathi,token_budget=9", {"token_budget": 9}),
        ("sarathi,order=mlfq", {"order": "mlfq"}),
        ("stock", {}),
    ],
)
def test_our_scheduler_is_told_the_objective_unless_it_has_its_own(
    word: str, settings: dict[str, Any]
) -> None:
    assert with_objective(parse_scheduler(word, {}), 0.05).sarathi == settings
