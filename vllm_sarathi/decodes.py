"""Which decodes run in the next batch, and which leave their place to others."""

from collections.abc import Sequence
from typing import Any

from vllm_sarathi.kv_blocks import num_tokens_that_fit
from vllm_sarathi.micro_batch import decode_share

ReadyDecode = tuple[int, int, Any]
"""A decode that vLLM can schedule now: its tokens, the tokens before them, vLLM's request."""


def ready_decodes(running: list[Any], next_step: int) -> list[ReadyDecode]:
    """Decodes that vLLM can schedule now."""
    ready = []
    for request in running:
        if request.is_prefill_chunk:
            continue
        computed = request.num_computed_tokens
        placeholders = request.num_output_placeholders
        num_tokens = request.num_tokens_with_spec + placeholders - computed
        if num_tokens <= 0 or next_step < request.next_decode_eligible_step:
            continue  # its last token is still in flight
        most = request.num_prompt_tokens + request.max_tokens
        if placeholders and computed + 2 - placeholders >= most:
            continue  # the step in flight reaches its limit
        ready.append((num_tokens, computed, request))
    return ready


def may_hide(scheduler: Any, ready: list[ReadyDecode], num_prefill_tokens: int) -> bool:
    """Whether vLLM can do without seeing some decodes in this step.

    It has to see whom it would preempt, and which adapters run.

    Args:
        scheduler: a vLLM ``Scheduler``.
        ready: the decodes.
        num_prefill_tokens: prefill tokens left of running requests.
    """
    if scheduler.lora_config:
        return False
    num_tokens = min(num_prefill_tokens, int(scheduler.max_num_scheduled_tokens))
    num_tokens += sum(num_tokens for num_tokens, _, _ in ready)
    return num_tokens_that_fit(scheduler, len(scheduler.running)) >= num_tokens


def keeps_waiting_decodes(scheduler: Any) -> bool:
    """Whether decodes lose nothing by sitting a step out.

    vLLM's first model runner forgets requests that a step leaves out, and gets all
    their tokens anew when they return; its second one keeps them. Drafts of speculative
    decoding are lost with either.
    """
    keeps = bool(getattr(scheduler, "use_v2_model_runner", False))
    return keeps and not scheduler.num_spec_tokens


def cohort(
    ready: list[ReadyDecode], num_decodes: int, num_micro_batches: int, held_back: Sequence[Any]
) -> tuple[list[ReadyDecode], list[ReadyDecode]]:
    """The decodes of the next micro-batch, and those that leave their place to later ones.

    Args:
        ready: decodes that may run now or later.
        num_decodes: all decodes, those in flight included.
        num_micro_batches: batches over which the decodes are spread evenly.
        held_back: requests that the last micro-batch held back; now they come first.
    """
    share = decode_share(len(ready), num_decodes, num_micro_batches)
    turns = {request: turn for turn, request in enumerate(held_back)}
    in_turn = sorted(ready, key=lambda decode: turns.get(decode[2], len(turns)))
    return in_turn[:share], in_turn[share:]
