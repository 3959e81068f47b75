import pytest

from vllm_sarathi.config import SarathiConfig


def test_no_settings_give_the_slo_preset() -> None:
    assert SarathiConfig.from_mapping({}).preset == "slo"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk": 256}, ("'chunk'", "chunk_size", "token_budget")),
        ({"preset": "fast"}, ("preset='fast'", "'decode-maximal'", "'slo'")),
        ({"preset": "decode-maximal", "chunk_size": 0}, ("chunk_size=0", "greater than or equal")),
        ({"token_budget": -1}, ("token_budget=-1", "greater than or equal to 1")),
        ({"tbt_slo_ms": "fast"}, ("tbt_slo_ms='fast'", "number", "'auto'")),
        ({"tbt_slo_ms": 0}, ("tbt_slo_ms=0", "greater than 0")),
        ({"tbt_slo_ms": float("inf")}, ("tbt_slo_ms=inf", "finite")),
        ({"max_stall_ms": 90}, ("max_stall_ms=90", "tbt_slo_ms='auto'", "a number")),
        ({"tbt_slo_ms": 50, "max_stall_ms": 40}, ("max_stall_ms=40", "tbt_slo_ms=50", "at least")),
        ({"ttft_slo_ms": -5}, ("ttft_slo_ms=-5", "greater than 0")),
        ({"preset": "stall-free", "tbt_slo_ms": 50}, ("tbt_slo_ms=50", "'slo'")),
        ({"shed": 1}, ("shed=1", "boolean")),
        ({"preset": "observe", "shed": True}, ("shed=True", "preset='observe'", "'slo'")),
        ({"order": "fcfs", "shed": True}, ("shed=True", "order='fcfs'", "'hybrid', 'edf'")),
        ({"preset": "stall-free", "shed": True}, ("shed=True", "order=None", "'stall-free'")),
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
    ],
)
def test_a_bad_setting_is_refused_by_name_value_and_what_is_allowed(
    settings: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="sarathi setting") as refused:
        SarathiConfig.from_mapping(settings)
    assert all(word in str(refused.value) for word in words), refused.value


def test_settings_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(ValueError, match="mapping"):
        SarathiConfig.from_mapping("slo")  # type: ignore[arg-type]


def limits(config: SarathiConfig, **changes: object) -> None:
    config.check_limits(
        **{"max_num_batched_tokens": 2048, "enable_chunked_prefill": True, **changes}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "config",
    [
        SarathiConfig(preset="stall-free", token_budget=4096),
        SarathiConfig(preset="decode-maximal", chunk_size=4096),
        SarathiConfig(tile_size=4096),
    ],
)
def test_a_batch_above_the_engines_maximum_is_refused(config: SarathiConfig) -> None:
    with pytest.raises(ValueError, match=r"=4096 is above max_num_batched_tokens=2048"):
        limits(config)


def test_default_batches_shrink_to_a_small_engine() -> None:
    limits(SarathiConfig(), max_num_batched_tokens=128)


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


def test_an_engine_that_does_not_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="enable_chunked_prefill=False"):
        limits(SarathiConfig(), enable_chunked_prefill=False)
    with pytest.raises(ValueError, match="the model is an encoder-decoder"):
        limits(SarathiConfig(), enable_chunked_prefill=False, is_encoder_decoder=True)
    limits(SarathiConfig(preset="observe"), enable_chunked_prefill=False)


@pytest.mark.parametrize(
    "settings", [{}, {"order": "srpf"}, {"preset": "stall-free", "order": "edf"}]
)
def test_any_order_that_knows_deadlines_can_shed(settings: dict[str, object]) -> None:
    assert SarathiConfig.from_mapping({**settings, "shed": True}).shed
    assert not SarathiConfig.from_mapping(settings).shed


def test_the_settings_say_which_were_set() -> None:
    said = SarathiConfig(tbt_slo_ms=50.0).sources()
    assert "tbt_slo_ms=50.0 (set)" in said
    assert "preset='slo' (default)" in said
