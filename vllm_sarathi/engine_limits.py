"""Settings that the engine's own limits make impossible."""

from vllm_sarathi.config import SarathiConfig


def check_limits(
    settings: SarathiConfig,
    *,
    max_num_batched_tokens: int,
    enable_chunked_prefill: bool,
    is_encoder_decoder: bool = False,
    min_chunk: int = 1,
) -> None:
    """Refuse settings that the engine's own limits make impossible.

    Args:
        settings: the settings.
        max_num_batched_tokens: vLLM's limit on the tokens of one step.
        enable_chunked_prefill: vLLM's setting.
        is_encoder_decoder: whether the model is one, so that vLLM set that to False.
        min_chunk: prefill tokens below which the model makes no progress.

    Raises:
        ValueError: names the setting, the value and what is allowed.
    """
    if not enable_chunked_prefill and settings.preset != "observe":
        cause = (
            "the model is an encoder-decoder, whose prefills vLLM does not chunk"
            if is_encoder_decoder
            else "enable_chunked_prefill=False"
        )
        raise ValueError(
            f"{cause}: that contradicts preset={settings.preset!r}, which works by chunking "
            "prefills; allowed are preset='observe' and --scheduler default"
        )
    for name in ("chunk_size", "token_budget", "tile_size"):
        value = getattr(settings, name)
        if isinstance(value, int) and value > max_num_batched_tokens:
            raise ValueError(
                f"{name}={value} is above max_num_batched_tokens={max_num_batched_tokens}, "
                "which sizes buffers; at most that is allowed"
            )
    if settings.chunk_size is not None and settings.chunk_size < min_chunk:
        raise ValueError(
            f"chunk_size={settings.chunk_size} is below the {min_chunk} tokens that this model "
            "can be cut into; at least that is allowed"
        )
