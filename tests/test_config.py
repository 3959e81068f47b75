from typing import Any

import pytest

from vllm_sarathi.config import SarathiConfig


def test_no_settings_give_the_slo_preset() -> None:
    assert SarathiConfig.from_mapping({}).preset == "slo"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk": 256}, ("'chunk' is unknown", "did you mean 'chunk_size'", "preset='slo'")),
        ({"preset": "fast"}, ("preset='fast'", "'decode-maximal'", "'slo'")),
        ({"preset": "decode-maximal", "chunk_size": 0}, ("chunk_size=0", "greater than or equal")),
        ({"token_budget": -1}, ("token_budget=-1", "greater than or equal to 1")),
        ({"tbt_slo_ms": "fast"}, ("tbt_slo_ms='fast'", "number", "'auto'")),
        ({"tbt_slo_ms": 0}, ("tbt_slo_ms=0", "greater than 0", "'auto'", "null")),
        ({"tbt_slo_ms": True}, ("tbt_slo_ms=True", "number")),
        ({"tbt_slo_ms": 1e300}, ("tbt_slo_ms=1e+300", "86400000")),
        ({"tbt_slo_ms": 10**5000}, ("tbt_slo_ms=<int>", "number")),
        ({"tpot_slo_ms": "50"}, ("tpot_slo_ms='50'", "number", "null")),
        ({"ttft_slo_ms": 900, "e2e_slo_ms": 800}, ("ttft_slo_ms=900", "above e2e_slo_ms=800")),
        ({"tpot_slo_ms": 90, "tbt_slo_ms": 80}, ("tpot_slo_ms=90", "above tbt_slo_ms=80")),
        (
            {"qos_classes": {"gold": {"tpot_slo_ms": 90, "tbt_slo_ms": 50}}},
            ("qos_classes.gold.tpot_slo_ms=90", "above qos_classes.gold.tbt_slo_ms=50"),
        ),
        ({"qos_classes": {"gold": {"tpot_slo_ms": 0}}}, ("gold.tpot_slo_ms=0", "null")),
        ({"qos_classes": {"gold": 50}}, ("qos_classes.gold=50", "a mapping")),
        ({"qos_classes": {"Gold": {}}}, ("qos_classes: name 'Gold'", "lower-case letters")),
        (
            {"qos_classes": {"gold": {"ttft": 5}}},
            ("qos_classes.gold: 'ttft'", "did you mean 'ttft_slo_ms'", "importance"),
        ),
        ({"qos_classes": {f"c{i}": {} for i in range(17)}}, ("16 entries at most",)),
        ({"client_objectives": ["ttft"]}, ("client_objectives.0='ttft'", "'ttft_slo_ms'")),
        ({"min_client_slo_ms": {"tpot_slo_ms": 0.02}}, ("tpot_slo_ms=0.02", "greater than 1")),
        (
            {"tpot_slo_ms": 50, "min_client_slo_ms": {"tpot_slo_ms": 90}},
            ("min_client_slo_ms.tpot_slo_ms=90", "above tpot_slo_ms=50"),
        ),
        (
            {"client_objectives": ["qos"], "min_client_slo_ms": {"tpot_slo_ms": 20}},
            ("min_client_slo_ms.tpot_slo_ms=20", "client_objectives=['qos']"),
        ),
        ({"qos_classes": {"gold": {"importance": 500}}}, ("importance=500", "equal to 100")),
        ({"min_client_slo_ms": {"ttft": 5}}, ("min_client_slo_ms: name 'ttft'", "'ttft_slo_ms'")),
        ({"min_client_slo_ms": {"ttft_slo_ms": -5}}, ("min_client_slo_ms.ttft_slo_ms=-5",)),
        ({"tpot_slo_ms": 50, "max_stall_ms": 40}, ("max_stall_ms=40", "tpot_slo_ms=50")),
        ({"tpot_slo_ms": "auto"}, ("tpot_slo_ms='auto'", "number")),
        ({"step_log": ""}, ("step_log=''", "not empty", "null")),
        ({"shed": "yes"}, ("shed='yes'", "true or false")),
        ({"tbt_slo_ms": float("inf")}, ("tbt_slo_ms=inf", "finite")),
        (
            {"max_stall_ms": 90, "client_objectives": ["ttft_slo_ms"]},
            ("max_stall_ms=90", "a number", "client_objectives"),
        ),
        ({"tbt_slo_ms": 50, "max_stall_ms": 40}, ("max_stall_ms=40", "tbt_slo_ms=50", "at least")),
        ({"ttft_slo_ms": -5}, ("ttft_slo_ms=-5", "greater than 0")),
        ({"preset": "stall-free", "tbt_slo_ms": 50}, ("tbt_slo_ms=50", "'slo'")),
        ({"shed": 1}, ("shed=1", "true or false")),
        ({"preset": "observe", "shed": True}, ("shed=True", "preset='observe'", "'slo'")),
        ({"order": "fcfs", "shed": True}, ("shed=True", "order='fcfs'", "'hybrid', 'edf'")),
        ({"preset": "stall-free", "shed": True}, ("shed=True", "order=None", "'stall-free'")),
        ({"preset": "offline", "tbt_slo_ms": 50}, ("tbt_slo_ms=50", "'offline'", "'slo'")),
        (
            {"order": "mlfq", "tbt_slo_ms": 50},
            ("tbt_slo_ms=50", "order='mlfq'", "mean time of whole requests", "'hybrid'"),
        ),
        ({"order": "mlfq", "tpot_slo_ms": 50}, ("tpot_slo_ms=50", "order='mlfq'")),
        (
            {"order": "mlfq", "qos_classes": {"gold": {"tpot_slo_ms": 50}}},
            ("qos_classes.gold.tpot_slo_ms=50", "order='mlfq'"),
        ),
        ({"token_budget": "256"}, ("token_budget='256'", "integer")),
        ({"token_budget": True}, ("token_budget=True", "integer")),
        ({"token_budget": 256.5}, ("token_budget=256.5", "integer")),
        (
            {"preset": "stall-free", "tile_size": 1024},
            ("tile_size=1024", "token_budget=512", "at most"),
        ),
        ({"token_budget": 256}, ("token_budget=256", "preset='slo'", "'stall-free'")),
        ({"chunk_size": 256}, ("chunk_size=256", "preset='slo'", "'decode-maximal'")),
        (
            {"preset": "decode-maximal", "token_budget": 256},
            ("token_budget=256", "'stall-free'"),
        ),
        (
            {"preset": "decode-maximal", "max_prefills_per_batch": 2},
            ("max_prefills_per_batch=2", "exactly 1"),
        ),
        ({"metrics_port": 70_000}, ("metrics_port=70000", "less than or equal to 65535")),
        (
            {"metrics_host": "0.0.0.0"},
            ("metrics_host='0.0.0.0'", "metrics_port=None", "1 to 65535"),
        ),
        (
            {"metrics_host": "", "metrics_port": 9},
            ("metrics_host=''", "a string that is not empty"),
        ),
    ],
)
def test_a_bad_setting_is_refused_by_name_value_and_what_is_allowed(
    settings: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="sarathi setting") as refused:
        SarathiConfig.from_mapping(settings)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tbt", "tbt_slo_ms"),
        ("tbt-slo-ms", "tbt_slo_ms"),
        ("itl_slo_ms", "tbt_slo_ms"),
        ("budget", "token_budget"),
        ("TTFT_SLO", "ttft_slo_ms"),
        ("zzzz", None),
        ("", None),
        (5, None),
    ],
)
def test_an_unknown_setting_is_refused_with_the_one_that_was_probably_meant(
    name: Any, meant: str | None
) -> None:
    with pytest.raises(ValueError, match="is unknown") as refused:
        SarathiConfig.from_mapping({name: 50})
    said = str(refused.value)
    assert ("did you mean" in said) is (meant is not None)
    assert f"did you mean {meant!r}?" in said or meant is None


@pytest.mark.parametrize(
    ("preset", "allowed", "refused"),
    [("slo", "tbt_slo_ms", "token_budget"), ("stall-free", "token_budget", "tbt_slo_ms")],
)
def test_only_settings_that_go_with_the_preset_are_named_as_allowed(
    preset: str, allowed: str, refused: str
) -> None:
    with pytest.raises(ValueError, match="'zzzz' is unknown") as error:
        SarathiConfig.from_mapping({"zzzz": 1, "preset": preset})
    assert allowed in str(error.value)
    assert refused not in str(error.value)


def test_every_setting_at_fault_is_named() -> None:
    with pytest.raises(ValueError, match=r"tbt_slo_ms=-1.*; sarathi setting order='first'"):
        SarathiConfig.from_mapping({"order": "first", "tbt_slo_ms": -1})


def test_settings_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(ValueError, match="mapping"):
        SarathiConfig.from_mapping("slo")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"preset": "decode-maximal"}, 128),
        ({"preset": "decode-maximal", "chunk_size": 64}, 64),
        ({"preset": "decode-maximal", "tile_size": 32}, 32),
        ({"preset": "decode-maximal", "tile_size": None}, 1),
        ({"preset": "stall-free"}, 1),
        ({}, 1),
    ],
)
def test_decode_maximal_batches_are_whole_tiles_unless_told_otherwise(
    settings: dict[str, object], tokens: int
) -> None:
    assert SarathiConfig.from_mapping(settings).batch_multiple == tokens


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        ({}, "hybrid"),
        ({"preset": "offline"}, "prefix"),
        ({"preset": "stall-free"}, "fcfs"),
        ({"preset": "offline", "order": "fcfs"}, "fcfs"),
    ],
)
def test_a_preset_has_an_order_unless_told_otherwise(
    settings: dict[str, object], order: str
) -> None:
    assert SarathiConfig.from_mapping(settings).waiting_order == order


@pytest.mark.parametrize(
    "settings", [{}, {"order": "srpf"}, {"preset": "stall-free", "order": "edf"}]
)
def test_any_order_that_knows_deadlines_can_shed(settings: dict[str, object]) -> None:
    assert SarathiConfig.from_mapping({**settings, "shed": True}).shed
    assert not SarathiConfig.from_mapping(settings).shed


@pytest.mark.parametrize(
    "settings",
    [
        {"max_stall_ms": 300},  # the class interactive has a pace, and requests may name it
        {"preset": "observe", "shed": False},
        {"preset": "stall-free", "tbt_slo_ms": None},
        {"token_budget": None},
        {"order": "mlfq", "tbt_slo_ms": None, "ttft_slo_ms": 900},
        {"preset": "offline", "tbt_slo_ms": None, "order": "mlfq"},
        {"ttft_slo_ms": 5000, "qos_classes": {"quick": {"e2e_slo_ms": 3000}}},
    ],
)
def test_what_means_something_or_repeats_that_a_setting_is_off_is_taken(
    settings: dict[str, Any],
) -> None:
    SarathiConfig.from_mapping(settings)
