"""Tells answers of tokens, as vLLM's ``EngineCoreOutput`` does."""

from types import SimpleNamespace

from vllm_sarathi.policy.deadlines import Answers


def came(
    answers: Answers, request_id: str, num_tokens: int, now_s: float, is_last: bool = False
) -> None:
    """Tell that a step brought so many tokens to a request."""
    reason = "stop" if is_last else None
    output = SimpleNamespace(
        request_id=request_id, new_token_ids=[0] * num_tokens, finish_reason=reason
    )
    answers.came([output], now_s)
