"""A request, its class and the server-wide settings resolve to one set of objectives."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_sarathi.config import CLIENT_FIELDS, SLO_FIELDS, SarathiConfig
from vllm_sarathi.objectives import ObjectiveError, ObjectivesReader, RequestObjectives

GOLD = {"gold": {"tpot_slo_ms": 25, "importance": 10}}


def reader(**settings: Any) -> ObjectivesReader:
    return ObjectivesReader(SarathiConfig.from_mapping(settings))


def test_with_nothing_said_the_gap_objective_is_the_learned_one() -> None:
    assert reader().read(None) == RequestObjectives(auto_tbt=True)


def test_server_wide_settings_are_every_requests_objectives() -> None:
    settings = {"ttft_slo_ms": 2000, "tpot_slo_ms": 50, "e2e_slo_ms": 60000}
    assert reader(**settings).read({}) == RequestObjectives(
        ttft_s=2.0, tpot_s=0.05, e2e_s=60.0, max_stall_s=0.5
    )


def test_a_request_overrides_its_class_which_overrides_the_settings() -> None:
    read = reader(ttft_slo_ms=3000, e2e_slo_ms=9000, qos_classes=GOLD).read
    said = {"qos": "gold", "ttft_slo_ms": 500}
    assert read(said) == RequestObjectives(
        ttft_s=0.5, tpot_s=0.025, e2e_s=9.0, max_stall_s=0.25, importance=10, qos="gold"
    )


def test_interactive_requests_have_objectives_for_the_first_and_the_mean_token() -> None:
    found = reader().read({"qos": "interactive"})
    assert (found.ttft_s, found.tpot_s, found.importance) == (2.0, 0.05, 0)
    assert not found.auto_tbt


def test_batch_requests_have_no_objective_and_the_lowest_importance() -> None:
    found = reader(ttft_slo_ms=2000, tbt_slo_ms=50).read({"qos": "batch"})
    assert found == RequestObjectives(importance=-100, qos="batch")


def test_a_ready_class_can_be_redefined() -> None:
    found = reader(qos_classes={"batch": {"e2e_slo_ms": 600000}}).read({"qos": "batch"})
    assert found == RequestObjectives(e2e_s=600.0, qos="batch")


@pytest.mark.parametrize(
    ("settings", "said", "is_auto"),
    [
        ({}, {"ttft_slo_ms": 500}, True),
        ({}, {"tpot_slo_ms": 50}, False),
        ({}, {"tbt_slo_ms": 50}, False),
        ({}, {"e2e_slo_ms": 5000}, False),
        ({"tbt_slo_ms": 50}, {}, False),
        ({"tbt_slo_ms": None}, {}, False),
        ({"tpot_slo_ms": 50}, {}, False),
    ],
)
def test_the_learned_gap_objective_holds_only_where_nobody_stated_one(
    settings: dict[str, Any], said: dict[str, Any], is_auto: bool
) -> None:
    assert reader(**settings).read(said).auto_tbt is is_auto


@pytest.mark.parametrize(
    ("settings", "said", "stall_s"),
    [
        ({}, {"tpot_slo_ms": 50}, 0.5),
        ({"tpot_slo_ms": 40}, {}, 0.4),
        ({"tpot_slo_ms": 40, "max_stall_ms": 100}, {}, 0.1),
        ({"tpot_slo_ms": 40, "max_stall_ms": 100}, {"tpot_slo_ms": 200}, 0.2),
        ({"tbt_slo_ms": 40, "max_stall_ms": 100}, {}, 0.1),
        ({"tbt_slo_ms": 40}, {}, None),
        ({"tpot_slo_ms": 40, "max_stall_ms": 100}, {"qos": "free"}, None),
    ],
)
def test_a_stall_is_bounded_by_the_setting_or_ten_times_the_mean_and_never_below_it(
    settings: dict[str, Any], said: dict[str, Any], stall_s: float | None
) -> None:
    free = {"free": {"tpot_slo_ms": None, "tbt_slo_ms": None}}
    assert reader(**settings, qos_classes=free).read(said).max_stall_s == stall_s


@pytest.mark.parametrize(
    "value",
    [True, -5, 0, 1, float("nan"), float("inf"), 1e300, 10**5000],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("field", SLO_FIELDS)
def test_a_time_out_of_range_is_refused_by_name_and_range(field: str, value: Any) -> None:
    with pytest.raises(ObjectiveError, match=r"above 1 and at most 86400000 \(ms\)") as refused:
        reader().read({field: value})
    assert refused.value.field == field
    assert f"{field}=" in str(refused.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"ttft_slo_ms": "500"}, "ttft_slo_ms='500': allowed is a number"),
        ({"tpot_slo_ms": [50]}, r"tpot_slo_ms=\[50\]: allowed is a number"),
        ({"qos": "platinum"}, "qos='platinum': allowed are default, interactive, batch, gold"),
        ({"qos": 5}, "qos=5: allowed are"),
        ({"qos": ["gold"]}, "allowed are"),
        ({"ttft_slo": 500}, "ttft_slo=500: known are qos, ttft_slo_ms"),
        ({"TPOT-SLO-MS": 50}, "TPOT-SLO-MS=50: known are"),
        ({"qos_class": "gold"}, "qos_class='gold': known are"),
        ({"importants": 5}, "importants=5: known are"),
    ],
)
def test_a_wrong_value_or_misspelt_name_is_refused_with_what_is_allowed(
    said: dict[str, Any], words: str
) -> None:
    with pytest.raises(ObjectiveError, match=words):
        reader(qos_classes=GOLD).read(said)


def test_arguments_of_others_are_left_alone() -> None:
    others = {"session_id": "a", "kv_transfer_params": {"slo": 1}, "slow": 1, "x" * 99 + "_slo": 1}
    assert reader().read(others) == reader().default


def test_a_message_stays_short_whatever_the_client_sent() -> None:
    with pytest.raises(ObjectiveError) as refused:
        reader().read({"ttft_slo_ms": "9" * 10**6})
    assert len(str(refused.value)) < 200


def test_requests_set_no_importance_unless_the_operator_lists_it() -> None:
    with pytest.raises(ObjectiveError, match=r"importance=5: .*client_objectives"):
        reader().read({"importance": 5})
    allowed = reader(client_objectives=["importance"])
    assert allowed.read({"importance": 5}).importance == 5
    with pytest.raises(ObjectiveError, match=r"ttft_slo_ms=500: .* to set importance$"):
        allowed.read({"ttft_slo_ms": 500})


@pytest.mark.parametrize("value", [True, 1.0, 101, -101, "5"])
def test_importance_is_a_whole_number_in_bounds(value: Any) -> None:
    with pytest.raises(ObjectiveError, match="whole number from -100 to 100"):
        reader(client_objectives=["importance"]).read({"importance": value})


def test_an_operator_caps_how_tight_an_objective_requests_set() -> None:
    capped = reader(
        min_client_slo_ms={"tpot_slo_ms": 20}, qos_classes={"tight": {"tpot_slo_ms": 5}}
    )
    assert capped.read({"tpot_slo_ms": 20}).tpot_s == 0.02
    with pytest.raises(ObjectiveError, match="tpot_slo_ms=19: allowed is a number of at least 20"):
        capped.read({"tpot_slo_ms": 19})
    assert capped.read({"qos": "tight"}).tpot_s == 0.005


@given(
    st.dictionaries(
        st.sampled_from(CLIENT_FIELDS),
        st.one_of(
            st.floats(), st.integers(), st.booleans(), st.text(), st.none(),
            st.sampled_from(["gold", "batch", 50, 2000.0]), st.lists(st.integers(), max_size=2),
        ),
    )
)  # fmt: skip
def test_what_is_read_is_in_range_and_what_is_not_is_an_error_with_a_field(
    said: dict[str, Any],
) -> None:
    every_field = reader(client_objectives=list(CLIENT_FIELDS), qos_classes=GOLD)
    refused_field = None
    try:
        found = every_field.read(said)
    except ObjectiveError as error:
        refused_field = error.field
    if refused_field is not None:
        assert refused_field in said
        assert every_field.read_or_default(said) == every_field.default
        return
    assert every_field.read_or_default(said) == found
    times = (found.ttft_s, found.tpot_s, found.tbt_s, found.e2e_s)
    assert all(time is None or 0 < time <= 86400 for time in times)
    assert found.qos in every_field.classes
    assert -100 <= found.importance <= 100
    for field in SLO_FIELDS:
        if field in said:
            assert getattr(found, field.replace("_slo_ms", "_s")) == said[field] / 1e3


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.one_of(json_values, st.dictionaries(st.sampled_from(CLIENT_FIELDS), json_values)))
def test_the_engine_core_reads_anything_without_an_error(extra_args: Any) -> None:
    assert isinstance(reader().read_or_default(extra_args), RequestObjectives)


def test_settings_with_classes_survive_json() -> None:
    settings = SarathiConfig.from_mapping({"qos_classes": GOLD, "tpot_slo_ms": 50})
    again = SarathiConfig.from_mapping(json.loads(settings.model_dump_json(exclude_unset=True)))
    assert again == settings


@pytest.mark.parametrize("settings", [{"preset": "offline"}, {"order": "mlfq"}])
@pytest.mark.parametrize(
    "said", [{"qos": "interactive"}, {"tpot_slo_ms": 50.0}, {"tbt_slo_ms": 50.0}]
)
def test_no_request_is_promised_gaps_where_no_batch_is_sized_for_them(
    settings: dict[str, Any], said: dict[str, Any]
) -> None:
    found = reader(**settings).read(said)
    assert (found.tpot_s, found.tbt_s, found.max_stall_s) == (None, None, None)
    assert not found.auto_tbt


def test_the_first_token_keeps_its_objective_where_gaps_have_none() -> None:
    assert reader(preset="offline").read({"qos": "interactive"}).ttft_s == 2.0
