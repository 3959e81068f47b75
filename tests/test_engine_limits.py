import pytest

from vllm_sarathi.config import SarathiConfig
from vllm_sarathi.engine_limits import check_limits


def limits(config: SarathiConfig, **changes: object) -> None:
    check_limits(
        config,
        **{"max_num_batched_tokens": 2048, "enable_chunked_prefill": True, **changes},  # type: ignore[arg-type]
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


def test_an_engine_that_does_not_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="enable_chunked_prefill=False"):
        limits(SarathiConfig(), enable_chunked_prefill=False)
    with pytest.raises(ValueError, match="the model is an encoder-decoder"):
        limits(SarathiConfig(), enable_chunked_prefill=False, is_encoder_decoder=True)
    limits(SarathiConfig(preset="observe"), enable_chunked_prefill=False)
