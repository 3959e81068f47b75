"""The limits of the server whose steps ``calibrate`` reads."""

import argparse

from vllm_sarathi.simulator.kv_room import check_kv_tokens


def calibrated_limits(options: argparse.Namespace) -> tuple[int, int, tuple[int | None, ...]]:
    """Its KV cache's tokens, its longest request and the windows of its groups of layers.

    What an option says counts more than what the log says.

    Raises:
        ValueError: the log cannot be read or lacks them, or vLLM would not start with them.
    """
    # A second of imports, which a wrong argument need not wait for.
    from vllm_sarathi.simulator.machine.calibration import read_begin

    begin = read_begin(options.steps)
    num_kv_tokens = options.kv_tokens or begin.num_kv_tokens
    max_model_len = options.max_model_len or begin.max_model_len
    if not num_kv_tokens or not max_model_len:
        raise ValueError(
            f"step log {options.steps!r} says num_kv_tokens={begin.num_kv_tokens} and "
            f"max_model_len={begin.max_model_len}; give --kv-tokens and --max-model-len"
        )
    if options.kv_tokens or options.max_model_len:
        check_kv_tokens(num_kv_tokens, max_model_len, begin.kv_windows)
    return num_kv_tokens, max_model_len, begin.kv_windows
