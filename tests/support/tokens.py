"""Tells answers of tokens, as vLLM's ``EngineCoreOutput`` does."""

from types import SimpleNamespace
from typing import Any

from vllm_sarathi.policy.answers import Answers


def output(request_id: str, num_tokens: int, is_last: bool = False) -> Any:
    """What a step brought to a request."""
    return SimpleNamespace(
        request_id=request_id,
        new_token_ids=[0] * num_tokens,
        finish_reason="stop" if is_last else None,
    )


def came(
    answers: Answers, request_id: str, num_tokens: int, now_s: float, is_last: bool = False
) -> None:
    """Tell that a step brought so many tokens to a request."""
    answers.came([output(request_id, num_tokens, is_last)], now_s)
