"""Batches that the next one is chosen from."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import repeat

from vllm_sarathi.step import RequestView, StepView
from vllm_sarathi.step_time import BATCH_SIZES, StepWork


def candidates(view: StepView, most: int) -> Iterator[StepWork]:
    """Batches of growing size that hold all decodes and some prefill.

    Args:
        view: the requests.
        most: tokens that no candidate exceeds.

    Yields:
        One batch for each of ``BATCH_SIZES`` until all prefill fits or ``most`` is
        reached, and that last one.
    """
    decodes, chunk_context, total = view.num_decode_tokens, 0.0, view.num_decode_tokens
    sizes = BATCH_SIZES[bisect_right(BATCH_SIZES, decodes) : bisect_right(BATCH_SIZES, most - 1)]
    prompts = _prompts(view)
    prompt, done = next(prompts, None), 0
    for size in (*sizes, most):
        while prompt is not None and total < size:
            chunk = min(size - total, prompt.num_tokens - done)
            chunk_context += chunk * (prompt.num_computed_tokens + done + chunk / 2)
            total, done = total + chunk, done + chunk
            if done == prompt.num_tokens:
                prompt, done = next(prompts, None), 0
        if total > decodes:
            yield StepWork(total, chunk_context, view.decode_context_tokens)
        if total < size:
            return


def _prompts(view: StepView) -> Iterator[RequestView]:
    """Prefill in the order of service; waiting prompts beyond the view look like those in it."""
    yield from view.prompts
    if view.num_unseen:
        yield from repeat(RequestView("unseen", view.mean_waiting_tokens), view.num_unseen)
