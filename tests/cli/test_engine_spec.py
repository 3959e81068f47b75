from typing import Any

import pytest

from vllm_sarathi.cli.engine_spec import parse_engine, with_objectives
from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.latency import Objectives
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
    assert parse_engine(word, {}).name == word


def test_a_label_of_ones_own_stays() -> None:
    assert EngineSettings(label="mine").name == "mine"
    assert parse_engine("stock,label=7", {}).name == "7"


def test_an_engine_is_one_word() -> None:
    engine = parse_engine("sarathi:1024,tbt_slo_ms=50,max_num_seqs=8", {})
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
    engine = with_objectives(parse_engine(word, {}), Objectives(tbt_s=0.05))
    assert engine.sarathi == settings


ASKED = Objectives(ttft_s=2, tpot_s=0.05, e2e_s=10)


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("sarathi", {"ttft_slo_ms": 2000, "tpot_slo_ms": 50, "e2e_slo_ms": 10_000}),
        ("sarathi,ttft_slo_ms=9", {"ttft_slo_ms": 9, "tpot_slo_ms": 50, "e2e_slo_ms": 10_000}),
        ("sarathi,tbt_slo_ms=9", {"tbt_slo_ms": 9, "ttft_slo_ms": 2000, "e2e_slo_ms": 10_000}),
        ("sarathi,preset=stall-free", {"preset": "stall-free"}),
    ],
)
def test_our_scheduler_is_told_every_objective_that_it_is_measured_by(
    word: str, settings: dict[str, Any]
) -> None:
    told = with_objectives(parse_engine(word, {}), ASKED)
    assert (told.sarathi, told.name) == (settings, parse_engine(word, {}).name)
    SarathiConfig.from_mapping(told.sarathi)


@pytest.mark.parametrize(
    ("word", "asked", "settings"),
    [
        ("sarathi", Objectives(ttft_s=20, e2e_s=10), {"e2e_slo_ms": 10_000}),
        ("sarathi", Objectives(tpot_s=0.2, tbt_s=0.1), {"tbt_slo_ms": 100}),
        ("sarathi,ttft_slo_ms=20000", Objectives(e2e_s=10), {"ttft_slo_ms": 20_000}),
    ],
)
def test_our_scheduler_is_not_told_what_it_would_refuse(
    word: str, asked: Objectives, settings: dict[str, Any]
) -> None:
    told = with_objectives(parse_engine(word, {}), asked)
    assert told.sarathi == settings
    SarathiConfig.from_mapping(told.sarathi)
